"""How a rollout looks while it happens: a live table with one row per host, or one line per change. On stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fleetctl.render.events import Told, change_line
from fleetctl.render.hosts import ORDER
from fleetctl.render.terminal import console, grid, interactive, state_cell
from fleetctl.render.text import age
from fleetctl.rollout import Ledger

# Rows of the screen that are not for hosts.
CHROME_ROWS = 4


class Progress:
    """Shows events and pictures as they come. Used as a context manager; leaves the last picture on the screen."""

    def __init__(self) -> None:
        self._screen = console(sys.stderr)
        self._live = (
            Live(console=self._screen, auto_refresh=False, transient=False)
            if interactive(sys.stderr)
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, event: Told) -> None:
        """Off a terminal: the event as a line."""
        if self._live is None:
            typer.echo(change_line(event), err=True)

    def draw(self, status: Mapping[str, Any], ledger: Ledger) -> None:
        """On a terminal: the rows anew."""
        if self._live is not None:
            self._live.update(
                rows(status, ledger, time.time(), self._screen.height - CHROME_ROWS), refresh=True
            )


def rows(status: Mapping[str, Any], ledger: Ledger, now: float, limit: int) -> Group:
    """A row for each host that is or was at work since the command began, at most `limit` of them."""
    at = float(status.get("at") or now)
    hosts = [
        host
        for name, host in ledger.of_interest(status).items()
        if name in ledger.touched or host["state"] not in ("off", "unreachable", "failed")
    ]
    hosts.sort(key=lambda h: (ORDER.index(h["state"]) if h["state"] in ORDER else len(ORDER), h["name"]))
    shown = hosts[: max(1, limit)]
    table: Table = grid(
        ("HOST", "STATE", "SINCE", ""),
        (
            (
                host["name"],
                state_cell(host["state"]),
                age((host.get("since_s") or 0.0) + max(0.0, now - at)),
                host.get("error") or host.get("reason"),
            )
            for host in shown
        ),
    )
    left = len(hosts) - len(shown)
    return Group(table, Text(f"and {left} more", style="dim")) if left else Group(table)
