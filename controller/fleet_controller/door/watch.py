"""Watches the balancer's process, and has it started again the moment it ends: clients can't wait for the next tick.

pidfd_open(2) tells of the end of any process, also of one that an earlier controller started, without asking again and
again. A process that handed over to its successor has ended in order: then the successor is watched.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable

from fleet_controller.door.daemons import Process

log = logging.getLogger(__name__)

# How often a balancer that is not there yet is looked for, and the least time between two starts.
LOOK_S = 0.25
PAUSE_S = 1.0


class DoorWatch:
    """`find` is the balancer's process now, `lost` is called in a thread of this object's own when it has ended.

    start() begins, stop() returns when the thread has ended; before, `lost` may be under way.
    """

    def __init__(self, find: Callable[[], Process | None], lost: Callable[[], None]) -> None:
        self._find = find
        self._lost = lost
        self._stopping = threading.Event()
        self._wake_r, self._wake_w = os.pipe()
        self._thread = threading.Thread(target=self._watch, name="door-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        os.write(self._wake_w, b"x")
        self._thread.join()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def _watch(self) -> None:
        while not self._stopping.is_set():
            process = self._find()
            if process is None:
                self._stopping.wait(LOOK_S)
            elif self._await_end(process) and self._find() is None:
                begun = time.monotonic()
                try:
                    self._lost()
                except Exception:
                    # A bug or a full disk here must not end the watch: the next tick looks after the balancer too.
                    log.exception("the balancer could not be started again")
                self._stopping.wait(max(0.0, begun + PAUSE_S - time.monotonic()))

    def _await_end(self, process: Process) -> bool:
        """Whether it has ended; False where this watch was stopped."""
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return True
        try:
            if not process.alive():
                return True  # the descriptor may be of a later process with the same pid
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.register(self._wake_r, select.POLLIN)
            poll.poll()
            return not self._stopping.is_set()
        finally:
            os.close(descriptor)
