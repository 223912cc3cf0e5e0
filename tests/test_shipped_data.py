"""Every data file in the repository is what its folder says it is."""

from pathlib import Path

import pytest

from planner.files import load_any, load_plan, load_problem
from planner.model import Cluster, Profile, digest
from planner.model.check import check

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted(ROOT.glob("profiles/**/*.json")), ids=lambda path: path.stem)
def test_profiles_say_how_every_number_is_known(path: Path) -> None:
    profile = load_any(path)
    assert isinstance(profile, Profile)
    for table in profile.tables:
        assert table.provenance.method
        if table.provenance.kind == "measured":
            assert table.provenance.date
            assert table.provenance.runtime
            assert table.provenance.repeats


@pytest.mark.parametrize("path", sorted(ROOT.glob("profiles/clusters/*")), ids=lambda path: path.stem)
def test_clusters_are_read(path: Path) -> None:
    assert isinstance(load_any(path), Cluster)


@pytest.mark.parametrize("path", sorted(ROOT.glob("plans/*/*.json")), ids=lambda path: path.stem)
def test_plans_hold_every_constraint_of_the_problem_beside_them(path: Path) -> None:
    problem, plan = load_problem(path.with_name("problem.toml")), load_plan(path)
    assert plan.problem_sha256 == digest(problem)
    assert check(problem, plan) == ()
    assert plan.status == "optimal"
