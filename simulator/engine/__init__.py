"""Engines: what happens to requests on the devices of a plan."""

from simulator.engine.run import simulate
from simulator.engine.system import System, build_system

__all__ = ["System", "build_system", "simulate"]
