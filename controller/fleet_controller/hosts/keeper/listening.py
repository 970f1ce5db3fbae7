"""Whether anybody still hears this keeper: its connection may be gone while its work goes on."""

from __future__ import annotations

import select
import sys


class Listener:
    """The reader of our standard output."""

    def __init__(self) -> None:
        self._poll = select.poll()
        # Nothing is asked for: that nobody reads any more is told anyway (poll(2): POLLERR of a pipe, POLLHUP of a
        # socket).
        self._poll.register(sys.stdout.fileno(), 0)

    def gone_within(self, seconds: float) -> bool:
        """Wait so long; True as soon as nobody listens."""
        return bool(self._poll.poll(max(0, int(seconds * 1000))))
