"""How a command line ends: wrong usage and Ctrl-C are one line on standard error."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
import typer

from planner.cli.app import new_app, run

Command = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plam"], "no such command 'plam'"),
        (["plan"], "missing argument 'problem'"),
        (["plan", "p.json", "--nothing"], "no such option: --nothing"),
        (["plan", "p.json", "--scheduler", "magic"], "'magic' is not one of 'pipelines', 'np', 'dart-r'"),
        (["front", "p.json"], "missing option '--against'"),
        (["front", "p.json", "--against", "cost", "--steps", "0"], "expected a number greater than or equal to 1"),
        (["models", "export", "resnet18", "--seed", "-1"], "'--seed': expected a number greater than or equal to 0"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_help(command: Command, arguments: list[str], message: str) -> None:
    finished = command("planner", *arguments)
    assert (finished.status, finished.out) == (2, "")
    assert message in finished.err
    assert finished.err.startswith("error: ")
    assert finished.err.endswith(" --help`\n")
    assert finished.err.count("\n") == 1


def test_without_arguments_the_help_is_shown(command: Command) -> None:
    finished = command("planner")
    assert "Commands" in finished.out
    assert finished.err == ""


def test_ctrl_c_is_said_and_other_statuses_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = new_app("test")

    @app.command()
    def end(how: Annotated[Literal["well", "interrupted", "failed"], typer.Argument()]) -> None:
        if how == "interrupted":
            raise KeyboardInterrupt
        if how == "failed":
            raise typer.Exit(1)

    def status(how: str) -> Any:
        monkeypatch.setattr("sys.argv", ["test", how])
        try:
            run(app)
        except SystemExit as stopped:
            return stopped.code
        return 0

    assert [status(how) for how in ("well", "failed", "interrupted")] == [0, 1, 130]
    assert capsys.readouterr().err == "stopped; what was finished is kept\n"
