"""What cannot be merged, deployed or answered: one clear line each."""

import json
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from planner.model import InputError
from planner.planning.merging import exact
from planner.planning.merging.deployment import MergeProblem, deploy
from planner.planning.merging.oracles import History
from planner.planning.merging.schemes import LayerGroup, MergeModel, read_schemes, sharing_of

GROUP, HEAD = LayerGroup(100, 1.0, kind="conv 3"), LayerGroup(10, 1.0, mergeable=False)
A = MergeModel("a", (GROUP, HEAD), 1, 1.0, 0.3)
B = replace(A, name="b")


@pytest.mark.parametrize(
    ("models", "devices", "message"),
    [
        # no device
        ((A, B), (), "device_bytes: empty; give the memory of one device at least"),
        # devices of less than nothing, of no number of bytes, without end
        ((A, B), (500, -1), "device_bytes[1]: expected a number of bytes from 0 on, got -1"),
        ((A, B), (nan,), "device_bytes[0]: expected a number of bytes from 0 on, got nan"),
        ((A, B), (inf,), "device_bytes[0]: expected a number of bytes from 0 on, got inf"),
        # a device that holds nothing
        ((A,), (0,), "a needs at least 110 bytes on a device, the largest has 0"),
        # no model
        ((), (500,), "models: expected one or more of different names, got []"),
        # two models of one name, whose answers no history could tell apart
        ((A, A), (500,), "models: expected one or more of different names, got ['a', 'a']"),
        # nothing to deploy of a model
        ((replace(A, groups=()),), (500,), "a: expected one or more layer groups and stages, got 0 and 1"),
        # no stage
        ((replace(A, max_stages=0),), (500,), "a: expected one or more layer groups and stages, got 2 and 0"),
        # loads that are no numbers
        ((replace(A, mean_devices=nan),), (500,), "a: mean_devices: expected a number from 0 on, got nan"),
        ((replace(A, peak_devices=inf),), (500,), "a: peak_devices: expected a number from 0 on, got inf"),
        ((replace(A, mean_devices=-0.1),), (500,), "a: mean_devices: expected a number from 0 on, got -0.1"),
        # groups of less than nothing
        (
            (replace(A, groups=(replace(GROUP, parameter_bytes=-1), HEAD)),), (500,),
            "a: group 0: bytes: expected a number from 0 on, got -1",
        ),
        # a model that takes no time, whose stages' shares of load nobody knows
        (
            (replace(A, groups=(replace(GROUP, latency=0.0),)),), (500,),
            "a: its groups take no time at all; measure them, loads are shares of it",
        ),
        # too large for every device, with what it needs
        ((A, B), (90, 100), "a needs at least 110 bytes on a device, the largest has 100"),
        # each fits, but not all
        ((A, B), (150,), "no deployment keeps memory, load and one stage of a model per device; add devices or memory"),
    ],
)  # fmt: skip
def test_models_and_devices_that_cannot_be(models: Any, devices: Any, message: str) -> None:
    with pytest.raises(InputError) as refused:
        deploy(MergeProblem(models, devices))
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        # heads
        ({(0, 1), (1, 1)}, "heads cannot be merged; leave them out"),
        # equal bytes, unlike shapes
        ({(0, 0), (2, 0)}, "expected equal groups to merge, got (kind, bytes) [('conv 3', 100), ('conv 5', 100)]"),
        # a group that there is not
        ({(0, 7), (1, 7)}, "there is no group 7 of model"),
        # one model with itself
        ({(0, 0)}, "expected groups of two or more different models"),
    ],
)
def test_sharing_that_cannot_be(shared: set[tuple[int, int]], message: str) -> None:
    other = replace(A, name="c", groups=(replace(GROUP, kind="conv 5"), HEAD))
    with pytest.raises(InputError) as refused:
        MergeProblem((A, B, other), (500,), frozenset({frozenset(shared)}))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        # models by name
        ({"models": ["a", "b"], "start": 0, "num_layers": 1}, "expected a list of numbers of models and two integers"),
        # nothing shared
        ({"models": [0, 1], "start": 0, "num_layers": 0}, "expected a range within the 2 groups of a, got [0, 0)"),
        # one model
        ({"models": [1], "start": 0, "num_layers": 1}, "expected at least two different ones, got [1]"),
    ],
)
def test_schemes_that_say_nothing(entry: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as refused:
        sharing_of((A, B), read_schemes([entry]))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        # a word, which Python takes for true
        ({"shared": [[["a", 0], ["b", 0]]], "accepted": "no"}, "line 1: accepted: expected true or false, got 'no'"),
        # other models
        (
            {"shared": [[["a", 0], ["z", 0]]], "accepted": True},
            "line 1: an answer about ['z']; the models are ['a', 'b']",
        ),
        # other groups of models of these names
        ({"shared": [[["a", 5], ["b", 5]]], "accepted": True}, "there is no group 5 of model"),
        # heads, which no oracle can be asked about
        (
            {"shared": [[["a", 1], ["b", 1]]], "accepted": True},
            "heads cannot be merged; leave them out; use another history",
        ),
    ],
)
def test_histories_of_something_else(tmp_path: Path, answer: dict[str, object], message: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(answer) + "\n")
    with pytest.raises(InputError) as refused:
        History((A, B), None, path)
    assert message in str(refused.value)
    assert str(refused.value).startswith(f"{path}: line 1: ")


def test_histories_that_are_no_files_of_answers(tmp_path: Path) -> None:
    """A folder, and bytes that are no text."""
    with pytest.raises(InputError, match="expected a file of answers, a line of JSON each"):
        History((A, B), None, tmp_path)
    (tmp_path / "answers.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="expected a file of answers, a line of JSON each"):
        History((A, B), None, tmp_path / "answers.jsonl")


def test_an_oracle_that_changes_its_mind_is_not_asked_again(tmp_path: Path) -> None:
    """It accepts everything, then nothing: what it said first stands, in what follows from it, too."""
    models = tuple(MergeModel(name, (GROUP, GROUP, HEAD), 1, 1.0, 0.3) for name in "ab")
    both = frozenset({frozenset({(0, 0), (1, 0)}), frozenset({(0, 1), (1, 1)})})
    one = frozenset({frozenset({(0, 0), (1, 0)})})
    said = iter([True, False])
    history = History(models, lambda _: next(said), tmp_path / "answers.jsonl")
    assert history(both)
    assert history(both)
    assert history(one)
    assert history.asked == 1


def test_an_oracle_that_fails_keeps_the_answers_before(tmp_path: Path) -> None:
    """It refuses the first question and fails at the second: the answer to the first is on file."""
    models = tuple(MergeModel(name, (GROUP, GROUP, HEAD), 1, 1.0, 0.3) for name in "ab")
    asked: list[object] = []

    def oracle(sharing: object) -> bool:
        asked.append(sharing)
        if len(asked) > 1:
            raise InputError("out of memory")
        return False

    path = tmp_path / "answers.jsonl"
    with pytest.raises(InputError, match="out of memory"):
        exact.search(MergeProblem(models, (500, 500)), History(models, oracle, path))
    assert len(History(models, None, path).answers) == 1
