"""Applications in problem files: profiles by path, bad documents as one line."""

from dataclasses import replace
from pathlib import Path

import pytest

from planner.files import load_problem, load_profile
from planner.model import InputError
from planner.profiling.zoo import top1_percents

PLANS = Path(__file__).parents[3] / "plans"
SHIPPED = PLANS / "photos" / "problem.toml"


def test_the_example_states_published_accuracies_of_its_variants() -> None:
    (application,) = load_problem(SHIPPED).applications
    published = top1_percents()
    for task in application.tasks:
        assert task.accuracy == {variant.name: published[variant.name] for variant in task.variants}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("resnet50.json", "resnet5.json", r"applications\[0\].tasks\[1\].variants\[0\]: .*resnet5.json"),
        ("resnet50 = 76.13, ", "", r"accuracy: missing for \['resnet50'\]"),
        ("resnet50 = 76.13", "resnet50 = 760", r"tasks\[1\].accuracy.resnet50: expected .*100"),
        ('rule = "multiply"', 'rule = "best"', r"applications\[0\].rule: expected"),
        ('name = "look"', 'name = "look"\nafter = "classify"', "which does not come before it"),
        ("rate_rps = 40", "rate_rps = 40\nrates = 3", r"applications\[0\].rates: unknown key|applications\[0\].rates"),
    ],
)
def test_bad_applications_are_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = SHIPPED.read_text(encoding="utf-8").replace("../../profiles", str(PLANS.parent / "profiles"))
    assert old in text
    path = tmp_path / "problem.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        load_problem(path)
    assert "\n" not in str(caught.value)


def test_shipped_profiles_know_what_they_hand_on() -> None:
    """So that the check of seams speaks for them: the zoo's classifiers all answer with a thousand numbers."""
    profiles = [load_profile(path) for path in sorted((PLANS.parent / "profiles/zoo").glob("*.json"))]
    assert {profile.outputs for profile in profiles} == {("FLOAT[1,1000]",)}
    (application,) = load_problem(SHIPPED).applications
    look = application.tasks[0]
    other = replace(look.variants[1], outputs=("FLOAT[1,21841]",))
    with pytest.raises(InputError, match=r"task look: variants hand unlike outputs on .*mobilenet_v2 FLOAT\[1,21841\]"):
        replace(application, tasks=(replace(look, variants=(look.variants[0], other)), application.tasks[1]))
