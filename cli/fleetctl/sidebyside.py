"""The same work on many hosts at once; what they say comes to one thread, in the order in which it came."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fleet_controller.hosts.failure import HostFailure
from fleetctl.failure import FAILED, OK, PARTLY, UNREACHABLE

T = TypeVar("T")

# So many hosts are connected to at once: those that do not answer wait here, and hold up nobody who is at work.
REACHED_AT_ONCE = 128
# What was said and not yet shown; a host that says more waits.
MOST_UNSHOWN = 1000


@dataclass(frozen=True)
class Done(Generic[T]):
    """How it ended on a host: with a result or with a failure."""

    host: str
    result: T | None
    failure: HostFailure | None


class SideBySide(Generic[T]):
    """`work(host, say)` on each host, in a thread of its own; at most `parallel` at once after `reach(host)`.

    Both raise HostFailure. The threads end with the process: who is interrupted closes the connections and leaves.
    """

    def __init__(
        self,
        reach: Callable[[str], None],
        work: Callable[[str, Callable[[object], None]], T],
        parallel: int,
    ) -> None:
        self._reach = reach
        self._work = work
        self._reaching = threading.BoundedSemaphore(max(REACHED_AT_ONCE, parallel))
        self._working = threading.BoundedSemaphore(parallel)
        self._news: queue.Queue[tuple[str, object]] = queue.Queue(MOST_UNSHOWN)

    def run(self, hosts: Sequence[str], until: float | None = None) -> Iterator[tuple[str, object]]:
        """(host, what it said) as it comes; of each host the last is a Done. Ends at `until` (monotonic seconds)."""
        for host in hosts:
            threading.Thread(target=self._one, args=(host,), daemon=True, name=f"fleetctl-{host}").start()
        left = len(hosts)
        while left:
            try:
                host, said = self._news.get(
                    timeout=None if until is None else max(0.0, until - time.monotonic())
                )
            except queue.Empty:
                return
            left -= isinstance(said, Done)
            yield host, said

    def _one(self, host: str) -> None:
        done: Done[T]
        try:
            with self._reaching:
                self._reach(host)
            with self._working:
                done = Done(host, self._work(host, lambda said: self._news.put((host, said))), None)
        except HostFailure as failure:
            done = Done(host, None, failure)
        except (
            Exception
        ) as error:  # a thread's end: nobody else would hear of it, and the caller would wait for ever
            said = f"this is a bug in fleetctl: {type(error).__name__}: {error}"
            done = Done(host, None, HostFailure(host, "command", said, "FLEETCTL_DEBUG=1 shows more"))
        self._news.put((host, done))


def exit_code(good: int, failed: int, unreachable: int) -> int:
    """Of docs/cli.md. `failed` and `unreachable` are different hosts."""
    if not failed and not unreachable:
        return OK
    if good:
        return PARTLY
    return FAILED if failed else UNREACHABLE
