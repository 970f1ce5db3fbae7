"""OperatorLock: one command at a time that changes the fleet.

It lies in the state store, so it holds for everybody who shares that, from whatever machine. It is taken by commands
whose bounds or plan must not be mixed with another's (`up`, `down`, `rollback`), for as long as they wait. Commands
that ask one thing of the controller (`scale`, `drain`, `autoscale`, `keys`) need none: the controller answers one after
the other. Nobody who only looks waits for it.
"""

from __future__ import annotations

import getpass
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fleet_controller.door.daemons import Process
from fleet_controller.journal import Journal, JournalError
from fleet_controller.operation.holder import BEAT_S, WATCH_S, Holder

POLL_S = 0.5


class Held(Exception):
    """Somebody else holds it: `holder`."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(f"{holder.user}@{holder.machine} holds the operator lock")
        self.holder = holder


class Hold:
    """The lock in our hands. `lost()`: somebody took it, because we gave no sign of life."""

    def __init__(self, journal: Journal, holder: Holder) -> None:
        self._journal = journal
        self.holder = holder
        self._over = threading.Event()
        self._lost = False

    def lost(self) -> bool:
        return self._lost

    def beat(self) -> None:
        """Give a sign of life now and then, until it is over."""
        while not self._over.wait(BEAT_S):
            try:
                if not self._journal.beat_lock(self.holder.id, time.time()):
                    self._lost = True
                    return
            except JournalError:
                continue  # a full disk is no reason to give up what we hold

    def end(self) -> None:
        self._over.set()


@contextmanager
def operator_lock(journal: Journal, command: str, watch_s: float = WATCH_S) -> Iterator[Hold]:
    """Hold the lock while the block runs. Who is killed holds it no longer. Raises Held, JournalError."""
    holder = ourselves(command)
    _take(journal, holder, watch_s)
    hold = Hold(journal, holder)
    thread = threading.Thread(target=hold.beat, name="operator-lock", daemon=True)
    thread.start()
    try:
        yield hold
    finally:
        hold.end()
        thread.join()
        with suppress(JournalError):  # a full disk: the lock ends with this process all the same
            journal.leave_lock(holder.id)


def ourselves(command: str) -> Holder:
    """This process as a holder."""
    process = Process.of(os.getpid())
    now = time.time()
    return Holder(
        id=uuid.uuid4().hex,
        user=_user(),
        machine=socket.gethostname(),
        place=here(),
        pid=os.getpid(),
        ticks=0 if process is None else process.start_ticks,
        command=command,
        since=now,
        beat=now,
    )


def here() -> str:
    """Where a process id means something: this boot of this machine, and this namespace of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _take(journal: Journal, holder: Holder, watch_s: float) -> None:
    current = _try(journal, holder, lambda other: other.verdict(holder.place, time.time(), _runs) == "dead")
    if current is None:
        return
    if current.verdict(holder.place, time.time(), _runs) == "alive":
        raise Held(current)
    deadline = time.monotonic() + watch_s
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        now = journal.lock_holder()
        if now is not None and (now.get("id"), now.get("beat")) != (current.id, current.beat):
            break
    silent = (current.id, current.beat)
    left = _try(journal, holder, lambda other: (other.id, other.beat) == silent)
    if left is not None:
        raise Held(left)


def _try(journal: Journal, holder: Holder, dead: Callable[[Holder], bool]) -> Holder | None:
    def free(current: dict[str, Any]) -> bool:
        return dead(Holder.model_validate(current))

    found = journal.take_lock(holder.model_dump(mode="json"), free)
    return None if found is None else Holder.model_validate(found)


def _runs(pid: int, ticks: int) -> bool:
    process = Process.of(pid)
    return process is not None and process.start_ticks == ticks


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return str(os.getuid())
