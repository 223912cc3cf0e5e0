"""Tables are printed through `planner.cli.output` alone, so that every command that prints one has ``--json``."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted([*ROOT.glob("planner/cli/*.py"), *ROOT.glob("simulator/cli/*.py")])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parts[-3]}/{path.name}")
def test_tables_are_printed_through_output(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tables = {name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names}
    assert "Table" not in tables or path.name in ("output.py", "app.py")  # app.py: cells of progress


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parts[-3]}/{path.name}")
def test_who_prints_to_it_has_the_option(path):
    """`output(...)` is called with the command's own ``as_json``."""
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(function, ast.FunctionDef) or path.name == "output.py":
            continue
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "output":
                assert ast.unparse(call.args[0]) == "as_json"
                taken = [*function.args.args, *function.args.kwonlyargs]
                kinds = {each.arg: ast.unparse(each.annotation) for each in taken if each.annotation}
                assert kinds["as_json"] in ("JsonOption", "bool")  # a command's, or handed on by one
