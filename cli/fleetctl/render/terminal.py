"""What may be drawn where: colour and live rows on a terminal, plain full-width text everywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fleetctl.render.text import line

# Off a terminal nothing is folded: a row stays one line, however long.
UNLIMITED = 10_000

STATE_STYLES = {
    "ready": "green",
    "failed": "bold red",
    "unreachable": "bold red",
    "draining": "yellow",
    "stopping": "yellow",
    "off": "dim",
}


def interactive(stream: TextIO) -> bool:
    """Whether live rows may be drawn on `stream`."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def can_ask() -> bool:
    """Whether somebody sits there who can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def console(stream: TextIO) -> Console:
    """A console on `stream` that keeps to NO_COLOR (https://no-color.org) and never animates or colours a pipe."""
    terminal = interactive(stream)
    return Console(
        file=stream,
        force_terminal=terminal,
        color_system="auto" if terminal and not os.environ.get("NO_COLOR") else None,
        no_color=bool(os.environ.get("NO_COLOR")),
        width=None if terminal else UNLIMITED,
        markup=False,
        emoji=False,
        highlight=False,
    )


def grid(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table without lines. A cell is a Text (styled by us) or any value, which is made safe."""
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(line(cell)) for cell in row))
    return table


def state_cell(state: object) -> Text:
    name = line(state)
    return Text(name, style=STATE_STYLES.get(name, "cyan"))


def show(*parts: Table | Text | str, stream: TextIO | None = None) -> None:
    """Print each part on stdout (or `stream`); off a terminal without trailing blanks."""
    target = sys.stdout if stream is None else stream
    screen = console(target)
    with screen.capture() as capture:
        for part in parts:
            # a line of text stays one line, so that a command in it can be copied
            screen.print(part, soft_wrap=isinstance(part, str))
    text = capture.get()
    if not screen.is_terminal:
        text = "\n".join(row.rstrip() for row in text.split("\n"))
    target.write(text)
    target.flush()
