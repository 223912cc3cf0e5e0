"""Engines: what happens to requests on the devices of a plan."""

from simulator.engine.run import POLICIES, simulate
from simulator.engine.system import System, build_system

__all__ = ["POLICIES", "System", "build_system", "simulate"]
