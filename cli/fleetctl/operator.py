"""The operator lock as commands take it: who else is at work, in words."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fleetctl.failure import Failed
from fleetctl.fleet import Fleet
from fleetctl.render.text import age, clean, clock

if TYPE_CHECKING:
    from fleet_controller.journal import Journal
    from fleet_controller.operation.lock import Hold


@contextmanager
def only_operator(fleet: Fleet, journal: Journal, command: str) -> Iterator[Hold]:
    """Be the only command that changes the fleet while the block runs. Raises Failed, telling who is, and Locked."""
    from fleet_controller.journal import JournalError
    from fleet_controller.operation.lock import Held, operator_lock

    try:
        # the folder's lock keeps `state rebuild` out, which has no journal to hold a lock in
        with operator_lock(journal, command) as hold, fleet.folder.lock("operator"):
            yield hold
    except JournalError as error:
        raise Failed(clean(str(error))) from error
    except Held as held:
        raise Failed(clean(held.holder.told(time.time(), clock, age))) from None


@contextmanager
def only_operator_of(fleet: Fleet, command: str) -> Iterator[None]:
    """The same for a command that has no state store open; a fleet that was never started has nobody at work."""
    if not fleet.started:
        yield
        return
    with fleet.journal() as journal, only_operator(fleet, journal, command):
        yield


def still_ours(hold: Hold) -> None:
    """Raises Failed where somebody took the lock, because this process gave no sign of life for too long."""
    if hold.lost():
        raise Failed(
            "another operator took over while this command stood still; the controller goes on with what it began. "
            "See `fleetctl status` and `fleetctl events`"
        )
