"""Watch the journal until a command's effect is there: live rows on a terminal, a line per change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fleetctl.failure import Failed
from fleetctl.fleet import Fleet
from fleetctl.render.progress import Progress
from fleetctl.rollout import Ledger

if TYPE_CHECKING:
    from fleet_controller.journal import Journal

POLL_S = 0.2
# How often to make sure that the controller still lives.
PULSE_S = 1.0


def newest_event(journal: Journal) -> int:
    """Where to begin, to hear only what happens from now on."""
    events = journal.events(limit=1)
    return events[-1].id if events else 0


def until(
    fleet: Fleet,
    journal: Journal,
    ledger: Ledger,
    settled: Callable[[Mapping[str, Any]], bool],
    goal: str,
    after: int,
    timeout_s: float,
    pulse_check: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Any], bool]:
    """The picture in which `settled` holds, and False; or after `timeout_s` the last one, and True.

    Events with an id above `after` are told as they come. Raises Failed when the controller ends, when somebody
    asks for the opposite of `goal` meanwhile, and where `pulse_check` does.
    """
    controller = fleet.controller()
    deadline = time.monotonic() + timeout_s
    pulse = time.monotonic() + PULSE_S
    status: dict[str, Any] = {}
    with Progress() as progress:
        while True:
            status = journal.status() or status
            for event in journal.events(after):
                after = event.id
                ledger.hear(event)
                progress.tell(event)
            progress.draw(status, ledger)
            if settled(status):
                return status, False
            current = journal.goal()
            if current != goal:
                raise Failed(f"somebody asked for `fleetctl {current}` meanwhile; stopped waiting")
            if time.monotonic() > deadline:
                return status, True
            if time.monotonic() > pulse:
                pulse = time.monotonic() + PULSE_S
                pulse_check()
                if controller.find() is None:
                    raise Failed(
                        f"the controller ended: {controller.last_words()}; "
                        f"run `fleetctl {goal}` again to go on where it stopped"
                    )
            time.sleep(POLL_S)
