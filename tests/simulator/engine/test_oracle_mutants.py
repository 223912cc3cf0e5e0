"""A test of the test: rules broken on purpose in the oracle, which comparing it with the engine notices."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from inspect import getsource, isclass, isfunction
from types import CodeType, FunctionType, ModuleType

import numpy as np
import pytest
from random_networks import random_case
from random_systems import random_arrivals, random_sharing, random_switching
from same_records import assert_same, assert_same_network

from simulator.engine import simulate
from simulator.engine.networks import simulate_network
from simulator.results.records import NetworkRecords, Records

CASES = 150  # of each sort; most mutants are noticed within ten

# Rules for requests that follow routes: a module, what it says, and what would be wrong.
ROUTES = [
    ("core", "end_us, END, batch.number,", "end_us, END, -batch.number,"),  # ties of ends by number of dispatch
    ("core", "batch.start_us = max(self.now, server.until_us)", "batch.start_us = self.now"),  # loading first
    ("core", "max(1, round(planned_us * exp(", "max(1, floor(planned_us * exp("),
    ("core", "server.begun, server.begun + 1", "server.begun, server.begun"),  # a draw a service
    ("core", "begin_us = max(self.now, self.cards_free_us.get(card, 0))", "begin_us = self.now"),  # one at a time
    ("core", "if slow.from_us <= begin_us < slow", "if slow.from_us <= self.now < slow"),  # when sending begins
    ("core", "if batch.opened and self.now < filled_us", "if batch.opened and False"),  # fill timeout
    ("central", "waited_us >= self.station", "waited_us > self.station"),
    ("central", "self.next = (place + 1) % count", "self.next = place % count"),  # round robin goes on
    ("central", "self.requests.age_us(token[0]) >= self", "self.requests.age_us(token[0]) > self"),
    (
        "central",
        "if self.keep(token):\n                taken",
        "if True:\n                taken",
    ),  # passes over void ones
    ("central", "if server.on and not server.down:\n", "if server.on:\n"),
    ("central", "if server.on and not server.down]", "if server.on]"),
    ("central", "min(able, key=self.by_slack", "max(able, key=self.by_slack"),
    ("central", "or self.station.timeout_us == 0", ""),
    ("latest_start", "(-b.latest_start_us, b.number)", "(b.latest_start_us, b.number)"),  # the nearest one
    ("latest_start", "<= latest_us + station.epsilon_us]", "<= latest_us]"),
    ("latest_start", ".index(batch) :]", ".index(batch) :][:1]"),  # the lines of those behind as well
    ("latest_start", "may_discard=station.discard and token[1] == 0", "may_discard=station.discard"),  # first step only
    ("latest_start", "if station.counted_us is None else station.counted_us", ""),
    ("latest_start", "(batch.latest_start_us, batch.number)", "batch.number"),  # order in front of a server
    ("latest_start", "server.down or not server.on", "server.down"),
    ("routes", "self.missing[request, after] == 0 and", "self.missing[request, after] >= 0 and"),  # joins wait for all
    ("routes", "if self.age_us(request) >= drop", "if self.age_us(request) > drop"),
    ("routes", "if self.last_steps[request] == 0:", "if self.last_steps[request] >= 0:"),  # all branches
    ("routes", "if cut and token in self.cut_before:", "if token in self.cut_before:"),  # waiting is not being cut
    ("routes", "and server.idle:", "and False:"),  # idle first looks when a server has ended
    ("failures", "max(server.back_us, back_us)", "back_us"),  # the latest of repairs that overlap
    ("failures", "back_us + run.conditions.load_us", "back_us"),
    ("failures", "for _, serving, waiting in struck:", "for _, serving, waiting in reversed(struck):"),
    ("failures", "serving, cut=True", "serving, cut=False"),
    ("changes", "max(0, wanted - known)", "wanted"),
    ("changes", "if server.kind == kind][:wanted]", "if server.kind == kind][::-1][:wanted]"),  # the first ones
    ("changes", "queue.look()", "pass"),
]

# Rules for DNNs whose plans take over, in worlds, at times on shared pools.
PLANS = [
    ("core", "self.begin(server)\n        batch.owner.corrected(server)", "self.begin(server)"),
    ("promises", "max(until_us, expected_us) + latency_us", "until_us + latency_us"),  # not before it is expected
    ("promises", "max(self.run.now, server.until_us) + waiting_us", "max(self.run.now, server.until_us)"),
    ("promises", "if not self.run.conditions.corrected:", "if True:"),
    ("promises", "np.flatnonzero(other.books[CARD, there] == card)", "np.array([column])"),  # the card's mates
    ("promises", "(other, there) != (self, row)", "False"),  # what one reserves is known to the others
    ("reservations", "sent.retried or not choices", "not choices"),  # once
    ("reservations", "sent.slices[sent.stage] = min(choices)[1]", "sent.slices[sent.stage] = max(choices)[1]"),
    ("reservations", "self.free_us(server) + self.following_us(sent) > self.deadline_us(sent)", "True"),  # may wait
    (
        "reservations",
        "expected_us = self.run.now + self.passage_us(sent, sent.stage + 1)",
        "expected_us = self.run.now",
    ),
    (
        "reservations",
        "range(sent.stage + 1, len(sent.slices)):\n            self.withdraw",
        "[]:\n            self.withdraw",
    ),
    ("reservations", "int(self.arrivals_us[sent.first]) + self.system.slo_us", "10**12"),
    (
        "reservations",
        "[NOTES, 0, WAKE] > self.run.now",
        "[NOTES, 0, WAKE] >= self.run.now and self.books[NOTES, 0, TAIL] < len(self.arrivals_us)",
    ),  # the timer goes first
    ("reactive", "if not cut or token not in self.cut_before", "if not cut"),  # the second time
    ("occupancy", "+ int(latency_us[len(batch.tokens)])", "+ 0"),
    ("reactive", "if queue == 0 and self.successor", "if False"),  # the queue in charge
    ("reactive", "self.arrived = self.before.arrived", "self.arrived = 0"),
    ("takeovers", "return max([self.run.now, *taken_us]) + self", "return max([self.run.now, 0]) + self"),
    ("takeovers", "if any(one.is_at_work_on(server.device) for one in before):", "if False:"),
    ("takeovers", "if until_us <= since_us]", "if True]"),  # of earlier plans only
    ("takeovers", "server.back_us if server.down else 0", "0"),
    ("takeovers", "self.since_us.append(self.run.now if old else -1)", "self.since_us.append(-1)"),
]


def oracle(name: str) -> ModuleType:
    return importlib.import_module(f"simulator.engine.oracle.{name}")


def functions(module: ModuleType) -> dict[str, FunctionType]:
    """All functions and methods of a module, by name."""
    found = {}
    for name, one in vars(module).items():
        if isfunction(one):
            found[name] = one
        elif isclass(one):
            found |= {f"{name}.{key}": method for key, method in vars(one).items() if isfunction(method)}
    return {name: one for name, one in found.items() if one.__code__.co_filename == module.__file__}


@contextmanager
def broken(name: str, right: str, wrong: str) -> Iterator[None]:
    """Let the functions of a module of the oracle be those of another text."""
    module, text = oracle(name), getsource(oracle(name))
    assert text.count(right) == 1, f"{name}: {right!r} stands {text.count(right)} times"
    other = ModuleType(module.__name__)
    other.__file__ = module.__file__
    exec(compile(text.replace(right, wrong), str(module.__file__), "exec"), vars(other))
    before: dict[FunctionType, CodeType] = {}
    theirs = functions(other)
    for key, one in functions(module).items():
        if one.__code__ != theirs[key].__code__:
            before[one], one.__code__ = one.__code__, theirs[key].__code__
    assert before
    try:
        yield
    finally:
        for one, code in before.items():
            one.__code__ = code


@cache
def network_by_engine(seed: int) -> NetworkRecords:
    case = random_case(seed)
    return simulate_network(case.network, case.arrivals_us, case.conditions, changes=case.changes)


def compare_network(seed: int) -> None:
    case = random_case(seed)
    theirs = simulate_network(case.network, case.arrivals_us, case.conditions, changes=case.changes, engine="simpy")
    assert_same_network(network_by_engine(seed), theirs, seed)


def plans(seed: int, engine: str) -> list[Records]:
    """A third share pools, the others take over."""
    rng = np.random.default_rng(seed)
    if seed % 3 == 0:
        systems, pools = random_sharing(rng, 2)
        options = {"policy": ("reservation", "orderly")[seed % 2], "pools": pools}
    else:
        systems, worlds = random_switching(rng)
        options = {"policy": ("reservation", "reactive")[seed % 2], "world": worlds}
    return simulate(systems, [random_arrivals(rng, system) for system in systems], engine=engine, **options)


@cache
def plans_by_engine(seed: int) -> list[Records]:
    return plans(seed, "events")


def compare_plans(seed: int) -> None:
    for mine, theirs in zip(plans_by_engine(seed), plans(seed, "simpy"), strict=True):
        assert_same(mine, theirs, seed)


def is_noticed(rule: tuple[str, str, str], compare: Callable[[int], None]) -> bool:
    with broken(*rule):
        for seed in range(CASES):
            try:
                compare(seed)
            except AssertionError as difference:
                return bool(str(difference))  # of records or accounts; where the oracle broke, it says nothing
    return False


@pytest.mark.parametrize("rule", ROUTES, ids=lambda rule: f"{rule[0]}: {rule[1]}")
def test_a_wrong_rule_of_routes_is_noticed(rule: tuple[str, str, str]) -> None:
    assert is_noticed(rule, compare_network)


@pytest.mark.parametrize("rule", PLANS, ids=lambda rule: f"{rule[0]}: {rule[1]}")
def test_a_wrong_rule_of_plans_is_noticed(rule: tuple[str, str, str]) -> None:
    assert is_noticed(rule, compare_plans)


def test_every_rule_file_has_a_wrong_rule() -> None:
    files = {name for name, *_ in (*ROUTES, *PLANS)}
    assert files == {
        *("core", "central", "latest_start", "routes", "failures", "changes"),
        *("promises", "reservations", "occupancy", "reactive", "takeovers"),
    }
