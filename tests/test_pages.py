"""What the pages name is there: links, scripts, commands, and the options of command lines."""

import re
import shlex
from pathlib import Path

import pytest
import typer

import planner.cli.main
import simulator.cli.main

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part in ("out", "node_modules") or part[0] == "." for part in path.relative_to(ROOT).parts)
)
APPS = {"planner": planner.cli.main.app, "simulator": simulator.cli.main.app}
COMMAND = re.compile(r"python -m (planner|simulator) ([^`\n#]*)")


def in_pages(pattern: str | re.Pattern[str]) -> list[tuple[str, re.Match[str]]]:
    """Return every match, with the page that it is on."""
    return [
        (page.relative_to(ROOT).as_posix(), match)
        for page in PAGES
        for match in re.finditer(pattern, page.read_text("utf-8"))
    ]


def test_links_lead_somewhere() -> None:
    links = in_pages(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
    assert len(links) > 20
    for page, link in links:
        target = (ROOT / page).parent / link[1] if link[1] else ROOT / page
        assert target.exists(), f"{page}: {link[0]}"
        if link[2]:
            text = (target / "README.md" if target.is_dir() else target).read_text("utf-8")
            heads = re.findall(r"^#+ (.*)$", text, re.M)
            anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert link[2] in anchors, f"{page}: {link[0]}"


@pytest.mark.parametrize(("page", "package", "line"), [(page, one[1], one[2]) for page, one in in_pages(COMMAND)])
def test_commands_and_their_options_exist(page: str, package: str, line: str) -> None:
    command = typer.main.get_command(APPS[package])
    words = [word for word in shlex.split(line) if not word.isupper()]  # FILE, PROBLEM, ... stand for something
    while words and hasattr(command, "commands") and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    nothing = (
        not hasattr(command, "commands") or getattr(command, "invoke_without_command", False) or words == ["--help"]
    )
    assert nothing, f"{page}: no command {line!r}"
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    asked = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert asked <= known, f"{page}: {line!r}"


def test_scripts_exist() -> None:
    for page, match in in_pages(r"scripts/\w+\.py"):
        assert (ROOT / match[0]).exists(), f"{page}: {match[0]}"
