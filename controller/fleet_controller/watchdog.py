"""Watchdog: a controller in which something hangs starts itself afresh; the journal says where it was.

The process keeps its id and its log (execve(2)): whoever waits for it, or looks for it, finds the same one. Locks on
files end with it, for Python opens files close-on-exec.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable

from fleet_controller import failpoint
from fleet_controller.pulse import Pulse

log = logging.getLogger(__name__)

CHECK_S = 5.0


def watch(pulse: Pulse, start_afresh: Callable[[], None], check_s: float = CHECK_S) -> Callable[[], None]:
    """Look at `pulse` each `check_s` in a thread, until what is returned is called."""
    stopping = threading.Event()

    def run() -> None:
        while not stopping.wait(check_s):
            late = pulse.late()
            if late is not None:
                log.critical("%s; the controller starts afresh. Where each thread was:", late)
                faulthandler.dump_traceback()
                start_afresh()

    threading.Thread(target=run, name="watchdog", daemon=True).start()
    return stopping.set


def start_afresh() -> None:
    """Replace this process by one that is started in the same way, but without a failpoint. Does not return."""
    environment = {name: value for name, value in os.environ.items() if name != failpoint.VARIABLE}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
