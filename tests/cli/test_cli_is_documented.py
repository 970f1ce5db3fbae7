"""docs/cli.md names every command and every option that there is, and every exit code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from fleetctl import failure
from fleetctl.app import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    yield " ".join(words), command
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            yield from commands(command.get_command(None, name), (*words, name))


def title(section: str) -> str:
    """`fleetctl scale [POOL=]N` is about `fleetctl scale`."""
    return section.splitlines()[0].strip("`").partition(" [")[0].partition(" HOST")[0].partition(" FILE")[0]


ALL = dict(commands(typer.main.get_command(app), ("fleetctl",)))


@pytest.mark.parametrize("name", ALL)
def test_the_command_and_its_options_are_on_the_page(name):
    sections = PAGE.read_text().split("\n## ")
    command = ALL[name]
    if hasattr(command, "list_commands") and name != "fleetctl":
        return  # its commands are on the page
    own = [section for section in sections if title(section) == name]
    assert len(own) == 1, f"docs/cli.md has no section of its own for {name}"
    for parameter in command.params:
        for option in parameter.opts if parameter.param_type_name == "option" else []:
            assert f"`{option}" in own[0], f"{option} is not explained under {name}"


def test_the_page_has_no_command_that_does_not_exist():
    for section in PAGE.read_text().split("\n## ")[1:]:
        assert title(section) in ALL


def test_the_exit_codes_are_on_the_page():
    page = PAGE.read_text()
    for name in ("OK", "FAILED", "USAGE", "PARTLY", "UNREACHABLE", "INTERRUPTED"):
        assert f"| {getattr(failure, name)} |" in page
