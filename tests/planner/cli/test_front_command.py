"""The front as a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from planner.files import save
from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    LatencyTable,
    Network,
    Problem,
    Profile,
    Provenance,
)

Command = Callable[..., Any]


@pytest.fixture
def problem_file(tmp_path: Path) -> Path:
    """200 requests/s take one L4 with the small variant, two with the large one: a front of two plans."""
    measured = Provenance("measured", "by hand")
    small, large = (
        Profile(name, (Block((name,)),), (), (LatencyTable("L4", 1, (1,), ((us,),), measured),))
        for name, us in (("small", 5_000), ("large", 10_000))
    )
    dnn = Dnn("photos", 50_000, (small, large), rate_rps=200.0, accuracy={"small": 60.0, "large": 80.0})
    cluster = Cluster((DeviceType("L4", 3, price_per_hour=1.0),), Network(10))
    save(Problem(cluster, (dnn,)), tmp_path / "problem.json")
    return tmp_path / "problem.json"


def test_the_front_of_accuracy_is_drawn(command: Command, problem_file: Path) -> None:
    picture = problem_file.with_name("front.png")
    finished = command("planner", "front", problem_file, "--against", "accuracy", "--steps", "4", "--picture", picture)
    assert finished.status == 0
    assert imread(picture)[..., :3].std() > 0.05  # something is drawn


def test_pictures_of_no_known_kind_are_refused_before_planning(command: Command, problem_file: Path) -> None:
    picture = problem_file.with_name("front.txt")
    finished = command("planner", "front", problem_file, "--against", "cost", "--picture", picture)
    assert finished.status != 0
    assert "--picture: expected a name that ends in .png, .svg or .pdf, got" in finished.err
    assert not picture.exists()
