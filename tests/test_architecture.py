"""The folder list is the architecture: which part may import which."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# part -> parts of ours that it may import, besides itself. The most specific name holds.
MAY_IMPORT = {
    "planner": set(),
    "planner.kept_code": set(),
    "planner.compilation": {"planner.kept_code"},
    "planner.model": set(),
    "planner.files": {"planner.model"},
    "planner.profiling": {"planner.model"},
    "planner.completion": {"planner.model"},
    # The wings of planning stand on each other in this order; what is in none of them is above them all.
    "planner.planning": {"planner.model"},
    "planner.planning.arrays": set(),
    "planner.planning.pipelines": {"planner.model", "planner.compilation", "planner.planning.arrays"},
    "planner.planning.programme": {"planner.model", "planner.planning.arrays", "planner.planning.pipelines"},
    "planner.planning.whole_devices": {
        "planner.model",
        "planner.compilation",
        "planner.planning.arrays",
        "planner.planning.pipelines",
        "planner.planning.programme",
    },
    "planner.planning.applications": {
        "planner.model",
        "planner.planning.arrays",
        "planner.planning.pipelines",
        "planner.planning.programme",
    },
    "planner.planning.merging": {
        "planner.model",
        "planner.compilation",
        "planner.planning.arrays",
        "planner.planning.pipelines",
        "planner.planning.programme",
    },
    "planner.planning.baselines": {
        "planner.model",
        "planner.planning.arrays",
        "planner.planning.pipelines",
        "planner.planning.programme",
        "planner.planning.whole_devices",
    },
    "planner.planning.answers": {
        "planner.model",
        "planner.planning.arrays",
        "planner.planning.pipelines",
        "planner.planning.programme",
        "planner.planning.whole_devices",
        "planner.planning.baselines",
    },
    "planner.retraining": {"planner.model", "planner.profiling", "planner.planning.merging"},
    "planner.cli": {
        "planner.model",
        "planner.files",
        "planner.profiling",
        "planner.completion",
        "planner.planning",
        "planner.retraining",
    },
    "planner.__main__": {"planner.cli"},
    "simulator": set(),
    "simulator.ray_cluster": {"planner.model"},
    "simulator.memory": {"planner.model"},
    "simulator.workload": {"planner.model", "planner.files.names", "planner.compilation", "simulator.memory"},
    "simulator.compilation": {"planner.kept_code"},
    "simulator.dispatch": {"planner.model", "simulator.compilation"},
    "simulator.engine": {
        "planner.model",
        "simulator.memory",
        "simulator.compilation",
        "simulator.workload",
        "simulator.dispatch",
        "simulator.results.records",
    },
    "simulator.results": {"planner.model", "planner.files.atomic", "planner.files.names", "simulator.dispatch"},
    "simulator.results.records": {"planner.model", "planner.files.atomic", "planner.files.names", "simulator.dispatch"},
    "simulator.adaptation": {"planner.model", "simulator.dispatch", "simulator.engine", "simulator.results.records"},
    "simulator.adaptation.ipa": {"planner.model", "planner.planning.applications", "simulator.adaptation"},
    "simulator.adaptation.policies": {
        "planner.planning.applications",
        "simulator.dispatch",
        "simulator.adaptation",
    },
    "simulator.executor": {
        "planner.model",
        "simulator.ray_cluster",
        "planner.files.atomic",
        "planner.files.names",
        "planner.profiling",
        "simulator.workload",
        "simulator.dispatch",
        "simulator.engine",
        "simulator.adaptation",
        "simulator.results",
    },
    "simulator.sweep": {
        "planner.model",
        "simulator.ray_cluster",
        "planner.files.atomic",
        "planner.files.names",
        "simulator.workload",
        "simulator.dispatch",
        "simulator.engine",
        "simulator.results",
    },
    "simulator.cli": {
        "simulator.memory",
        "planner.model",
        "planner.files",
        "planner.cli.app",
        "planner.cli.output",
        "planner.cli.model_files",
        "simulator.workload",
        "simulator.dispatch",
        "simulator.engine",
        "simulator.results",
        "simulator.executor",
        "simulator.sweep",
    },
    "simulator.__main__": {"simulator.cli"},
}

MODULES = sorted([*ROOT.glob("planner/**/*.py"), *ROOT.glob("simulator/**/*.py")])


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The most specific part that a module belongs to."""
    matching = [part for part in MAY_IMPORT if module == part or module.startswith(part + ".")]
    return max(matching, key=len)


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from planner.files import ppipe` may name a module: judge the longer name where there is one
            for alias in node.names:
                longer = f"{node.module}.{alias.name}"
                place = ROOT / longer.replace(".", "/")
                is_module = place.with_suffix(".py").exists() or (place / "__init__.py").exists()
                found.add(longer if is_module else str(node.module))
    return {name for name in found if name.split(".")[0] in ("planner", "simulator")}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_down_the_layers(path: Path) -> None:
    own = part_of(module_name(path))
    allowed = MAY_IMPORT[own] | {own}
    for name in imports_of(path):
        # A part that is listed apart from its parent (results.records) is still its parent's to use.
        ok = any(name == part or name.startswith(part + ".") for part in allowed)
        assert ok, f"{module_name(path)} ({own}) imports {name}; it may import {sorted(allowed)}"


def test_planner_never_imports_simulator() -> None:
    for path in ROOT.glob("planner/**/*.py"):
        assert not any(name.startswith("simulator") for name in imports_of(path)), path


def test_nothing_imports_scripts_or_data_folders() -> None:
    for path in [*MODULES, *ROOT.glob("tests/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [str(node.module)]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for name in names:
                assert name.split(".")[0] not in {"scripts", "profiles", "traces", "plans", "tests"}, path


@pytest.mark.parametrize("folder", ["profiles", "traces", "plans"])
def test_data_folders_hold_no_python(folder: str) -> None:
    assert not list((ROOT / folder).rglob("*.py"))


def test_only_the_two_packages_are_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["planner", "simulator"]


def test_names_of_test_files_are_unique() -> None:
    """Pytest takes files of one name for one module where their folders are no packages."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
