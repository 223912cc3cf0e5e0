"""Engines: what happens to requests on the devices of a plan."""

from simulator.engine.run import POLICIES, simulate
from simulator.engine.system import System, build_system
from simulator.engine.world import World

__all__ = ["POLICIES", "System", "World", "build_system", "simulate"]
