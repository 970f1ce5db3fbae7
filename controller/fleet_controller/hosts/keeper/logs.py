"""The agent's output: a file of ours, or the journal where systemd runs it."""

from __future__ import annotations

from fleet_controller.hosts.keeper.elevation import Elevation
from fleet_controller.hosts.keeper.growth import Growth
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.supervision.choice import present
from fleet_controller.hosts.keeper.supervision.journal import Journal
from fleet_controller.hosts.keeper.supervision.systemd import Systemd

TAIL_LIMIT = 1024 * 1024


def log_of(place: Place, root: Elevation) -> Growth | Journal:
    """Where the agent's output is to be read: both can tell their end, and what came behind a cursor."""
    supervision = present(place, root)
    if isinstance(supervision, Systemd):
        return Journal(supervision.name, supervision.root)
    return Growth(place.log)


def last_words(place: Place, root: Elevation) -> str:
    return " / ".join(log_of(place, root).end(8)[0])[-1200:] or "none"
