"""Engines: what happens to requests on the devices of a plan."""

from simulator.engine.python_policy import Drop, Send, View, Wait
from simulator.engine.run import POLICIES, simulate
from simulator.engine.system import System, build_system
from simulator.engine.world import World

__all__ = ["POLICIES", "Drop", "Send", "System", "View", "Wait", "World", "build_system", "simulate"]
