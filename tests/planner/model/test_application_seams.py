"""What variants hand on to the next task, and accuracies of choices by a function of one's own."""

from dataclasses import replace

import pytest

from planner.model import (
    Application,
    Block,
    Cluster,
    DeviceType,
    InputError,
    LatencyTable,
    Network,
    Options,
    Problem,
    Profile,
    Provenance,
    Task,
)
from planner.model.applications import rated
from planner.planning import make_plan
from planner.planning.applications.per_task import plan_per_task

TABLE = LatencyTable("L4", 1, (1,), ((5_000,),), Provenance("measured", "by hand"))


def variant(name: str, *outputs: str) -> Profile:
    return Profile(name, (Block((name,)),), (), (TABLE,), input_bytes=100, outputs=outputs or None)


FIRST = Task("find", (variant("small", "FLOAT[10,4]"), variant("large", "FLOAT[10,4]")), {"small": 60, "large": 80})
LAST = Task("name", (variant("few", "FLOAT[10]"), variant("many", "FLOAT[1000]")), {"few": 50, "many": 90})


def test_only_what_is_handed_on_must_be_alike() -> None:
    """The last task's variants answer with 10 or 1000 numbers, which nobody takes; unknown outputs are let through."""
    application = Application("photos", 50_000, (FIRST, LAST), rate_rps=100.0)
    assert application.predecessors == (None, 0)
    unknown = replace(FIRST, variants=(variant("small"), FIRST.variants[1]))
    assert replace(application, tasks=(unknown, LAST)).tasks[0] is unknown


@pytest.mark.parametrize("other", ["FLOAT[20,4]", "FLOAT16[10,4]"])
def test_unlike_outputs_at_a_seam_are_one_line(other: str) -> None:
    task = replace(FIRST, variants=(FIRST.variants[0], variant("large", other)))
    with pytest.raises(InputError, match=r"task find: variants hand unlike outputs on .*small FLOAT\[10,4\]") as caught:
        Application("photos", 50_000, (task, LAST))
    assert "\n" not in str(caught.value)


def test_a_function_of_ones_own_decides_which_variants_go_together() -> None:
    """The small finder misses what *many* could name: together they are worth less than with *few*."""
    worth = {("small", "few"): 40.0, ("small", "many"): 10.0, ("large", "few"): 45.0, ("large", "many"): 70.0}
    plain = Application("photos", 50_000, (FIRST, LAST), rate_rps=100.0)
    application = rated(plain, lambda names: worth[names])
    cluster = Cluster((DeviceType("L4", 4, price_per_hour=1.0),), Network(10))
    options = Options("most_accurate", batch_building_factor=0, budget_per_hour=4.0)
    problem = Problem(cluster, (), options, (application,))
    assert plan_per_task(problem).value == pytest.approx(70.0)
    assert make_plan(problem).value == pytest.approx(70.0)
    first = replace(FIRST, variants=FIRST.variants[:1], accuracy={"small": 60})
    only_small = rated(replace(plain, tasks=(first, LAST)), lambda names: worth[names])
    assert plan_per_task(replace(problem, applications=(only_small,))).value == pytest.approx(40.0)


def test_accuracies_that_are_none_are_one_line() -> None:
    application = Application("photos", 50_000, (FIRST, LAST))
    with pytest.raises(InputError, match=r"accuracy of small\+few: expected percent in \[0, 100\], got 101"):
        rated(application, lambda names: 101)
    with pytest.raises(InputError, match=r"application photos: accuracy: missing for \['small\+many'"):
        replace(application, accuracies={"small+few": 40.0})
