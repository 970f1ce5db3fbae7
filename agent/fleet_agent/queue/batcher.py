"""Decides which waiting items go to the device together. PURE: no I/O, no clock; `now` is an argument (seconds).

A batch is formed from what waits as soon as the device asks for one: higher priority first, then in order of arrival,
with one place in ten for who waits longest. Nobody waits for company unless `max_queue_delay_s` says so. A request with
more items than there is room for is cut and its parts are joined again: being cut never delays it, since its last items
would have gone in the later batch anyway.

Where the duration of batches is known, a request is refused at once if the queue needs longer than it has, a batch is
kept as small as the deadlines in it ask for, and what can't make its deadline any more is never computed. Expired and
cancelled requests are forgotten before a batch is formed.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

from fleet_agent.queue.batch import Batch, Entry, Finished, Part, Taken
from fleet_agent.queue.forecast import MARGIN, Forecast
from fleet_wire.refusal import Refusal

R = TypeVar("R", bound=Hashable)
T = TypeVar("T")

PRIORITIES = range(10)

# Every tenth place in a batch goes to the request that waits longest, whatever its priority.
_EVERY = 10


def _unknown(size: int) -> float | None:
    return None


class Batcher(Generic[R, T]):
    """The queue of one model. Sizes count items (instances), `max_queue_size` counts requests."""

    def __init__(
        self,
        max_batch_size: int,
        max_queue_delay_s: float = 0.0,
        max_queue_size: int = 1024,
        seconds: Callable[[int], float | None] = _unknown,
    ) -> None:
        """`seconds(size)`: how long a batch of that size takes, None where that isn't known.

        Raises ValueError for sizes under 1 or a negative delay.
        """
        if max_batch_size < 1 or max_queue_size < 1 or max_queue_delay_s < 0:
            raise ValueError("max_batch_size and max_queue_size are at least 1, max_queue_delay_s at least 0")
        self.max_batch_size = max_batch_size
        self.max_queue_delay_s = max_queue_delay_s
        self.max_queue_size = max_queue_size
        self._forecast = Forecast(seconds)
        self._live: dict[R, Entry[R]] = {}
        # By priority, highest first. OrderedDicts, since a dict finds its first key slowly once many before it have
        # been deleted. A class stays once it was used: there are ten at most.
        self._queues: dict[int, OrderedDict[R, Entry[R]]] = {}
        self._deadlines: list[tuple[float, int, R]] = []
        self._counted = itertools.count()  # so that of two equal deadlines the requests aren't compared
        self._waiting = 0
        self._waiting_items = 0
        self._items: dict[int, int] = {}  # of them by priority
        self._cut = 0  # waiting requests of which something has gone already
        self._group: Hashable = None  # of what waits, unless it is mixed
        self._mixed = False
        self._picked = 0
        self._batches = 0

    def __repr__(self) -> str:
        return f"<Batcher {self.queued} queued, {self.in_flight} in flight, {self._waiting_items} items wait>"

    @property
    def queued(self) -> int:
        """Requests of which nothing has gone to the device yet."""
        return self._waiting - self._cut

    @property
    def in_flight(self) -> int:
        """Requests of which something has gone to the device."""
        return len(self._live) - self._waiting + self._cut

    @property
    def requests(self) -> list[R]:
        """All that are queued or in flight."""
        return list(self._live)

    @property
    def waiting_items(self) -> int:
        return self._waiting_items

    @property
    def full(self) -> bool:
        """As many items wait as one batch takes."""
        return self._waiting_items >= self.max_batch_size

    def add(
        self,
        request: R,
        count: int,
        now: float,
        deadline: float | None = None,
        priority: int = 0,
        busy_s: float = 0.0,
        group: Hashable = None,
    ) -> None:
        """Queue `count` items under the caller's own name for the request, to be answered before `deadline`.

        `priority`: one of PRIORITIES, higher is served first. `busy_s`: until a device is free for this queue. `group`:
        only requests with the same one share a batch (predictions don't know of groups: they take batches for full).
        Raises Refusal `overloaded` (the queue is full, with the time it needs), `unavailable` (it can't be answered in
        time, with when to come back) or `deadline_exceeded`; ValueError for a name in use or an empty request.
        """
        if count < 1 or request in self._live:
            raise ValueError(f"request {request} is empty or already known")
        if self._waiting - self._cut >= self.max_queue_size:
            message = f"{self.queued} requests wait already (max_queue_size {self.max_queue_size})"
            raise Refusal("overloaded", message, self.expected_wait_s())
        if deadline is not None:
            self._check_deadline(count, now, deadline, priority, busy_s)
            heapq.heappush(self._deadlines, (deadline, next(self._counted), request))
        if not self._waiting:
            self._group, self._mixed = group, False
        elif group != self._group:
            self._mixed = True
        entry = Entry(request, 0, count, now, deadline, priority, group)
        self._live[request] = entry
        queue = self._queues.get(priority)
        if queue is None:
            queue = self._queues[priority] = OrderedDict()
            self._items[priority] = 0
            self._queues = dict(sorted(self._queues.items(), reverse=True))
        queue[request] = entry
        self._waiting += 1
        self._waiting_items += count
        self._items[priority] += count

    def predicted_s(self, count: int, now: float, priority: int = 0, busy_s: float = 0.0) -> float | None:
        """Seconds until `count` items queued now would be answered; None where that can't be known."""
        ahead = sum(items for number, items in self._items.items() if number >= priority)
        needed = self._forecast.until_done(ahead + count, self.max_batch_size, now)
        return None if needed is None else busy_s + needed

    def expected_wait_s(self) -> float:
        """How long what waits now will keep the device busy, by the recent batches' duration; at least 1 s."""
        return self._forecast.usual_s(self._waiting_items, self.max_batch_size)

    def cancel(self, request: R) -> bool:
        """Forget a request: what waits leaves the queue, what runs is dropped when it returns. False: not known."""
        entry = self._live.pop(request, None)
        if entry is None:
            return False
        if entry.sent < entry.count:
            del self._queues[entry.priority][request]
            self._waiting -= 1
            self._cut -= entry.sent > 0
            self._waiting_items -= entry.count - entry.sent
            self._items[entry.priority] -= entry.count - entry.sent
        return True

    def wake_at(self) -> float | None:
        """When `take` may have something for a free device, or something to expire; None: not before an `add`."""
        self._drop_stale_deadlines()
        ripe = self._ripe_at() if self._waiting else None
        if not self._deadlines:
            return ripe
        return self._deadlines[0][0] if ripe is None else min(ripe, self._deadlines[0][0])

    def take(self, now: float) -> Taken[R]:
        """The batch for a device that is free now, after forgetting everything that can't make its deadline."""
        expired = self._expire(now) if self._deadlines else []
        if not self._waiting or now < self._ripe_at():
            return Taken(None, tuple(expired))
        waiting = [(priority, queue) for priority, queue in self._queues.items() if queue]
        if len(waiting) == 1 and not self._deadlines and not self._mixed:
            parts = self._first_come(*waiting[0])
        else:
            parts = self._chosen(now, expired)
        if not parts:
            return Taken(None, tuple(expired))
        self._batches += 1
        size = sum([part.stop - part.start for part in parts])
        return Taken(Batch(self._batches, tuple(parts), now, size), tuple(expired))

    def _first_come(self, priority: int, queue: OrderedDict[R, Entry[R]]) -> list[Part[R]]:
        """A batch in order of arrival, where nothing else is to be weighed."""
        parts: list[Part[R]] = []
        room = self.max_batch_size
        while room > 0 and queue:
            request, entry = queue.popitem(last=False)
            start, count = entry.sent, entry.stop
            if not start and count <= room:
                entry.sent = count
                parts.append(entry)
                room -= count
                continue
            if count - start > room:
                entry.sent += room
                self._cut += not start
                queue[request] = entry
                queue.move_to_end(request, last=False)
            else:
                entry.sent = count
                self._cut -= 1
            parts.append(Part(request, start, entry.sent))
            room -= entry.sent - start
        self._waiting = len(queue)
        taken = self.max_batch_size - room
        self._waiting_items -= taken
        self._items[priority] -= taken
        self._picked += len(parts)
        return parts

    def _chosen(self, now: float, expired: list[R]) -> list[Part[R]]:
        """A batch by priority, deadline and group; what can't make its deadline any more is forgotten, into `expired`.

        Of several groups, the first request's is taken, whose turn comes by priority and arrival: none starves.
        """
        alike: Iterator[tuple[R, Entry[R]]] | None = None
        parts: list[Part[R]] = []
        room = self.max_batch_size
        taken = 0
        while room > 0 and self._waiting:
            following = self._next() if alike is None else next(alike, None)
            if following is None:
                break
            request, entry = following
            left = entry.stop - entry.sent
            if entry.deadline is not None:
                most = self._forecast.most_within(entry.deadline - now, self.max_batch_size, now)
                if not most:
                    self.cancel(request)
                    expired.append(request)
                    continue
                room = min(room, most - taken)
                if room <= 0:
                    break
            size = left if left < room else room
            whole = size == entry.stop
            parts.append(entry if whole else Part(request, entry.sent, entry.sent + size))
            taken += size
            room -= size
            self._send(request, entry, size)
            if alike is None and self._mixed:
                alike = self._alike(request, entry.group)
        return parts

    def _alike(self, request: R, group: Hashable) -> Iterator[tuple[R, Entry[R]]]:
        """The others of a group that wait now."""
        waiting = [pair for queue in self._queues.values() for pair in queue.items()]
        return iter([(other, entry) for other, entry in waiting if entry.group == group and other != request])

    def finish(
        self, batch: Batch[R], outcomes: Sequence[T | Refusal], now: float
    ) -> tuple[list[Finished[R, T]], int]:
        """Take back a batch with one outcome per part; answers the requests that are over now, and how many items came
        back that nobody waits for any more.

        A request with a refused part is over at once and its other parts are forgotten. Parts of requests that were
        cancelled or have expired meanwhile are dropped. Raises ValueError where outcomes and parts differ in number.
        """
        if len(outcomes) != len(batch.parts):
            raise ValueError(f"{len(outcomes)} outcomes for a batch of {len(batch.parts)} parts")
        self._forecast.took(max(0.0, now - batch.formed_at), now)
        live = self._live
        finished: list[Finished[R, T]] = []
        unwanted = 0
        for part, outcome in zip(batch.parts, outcomes, strict=True):
            entry = live.get(part.request)
            if entry is None:
                unwanted += part.size
                continue
            if isinstance(outcome, Refusal):
                self.cancel(part.request)
                finished.append((part.request, outcome))
                continue
            if entry is part:
                del live[part.request]
                finished.append((part.request, [outcome]))
                continue
            entry.returned += part.stop - part.start
            if entry.results is None:
                entry.results = {}
            entry.results[part.start] = outcome
            if entry.returned == entry.count:
                del self._live[part.request]
                ordered = [entry.results[start] for start in sorted(entry.results)]
                finished.append((part.request, ordered))
        return finished, unwanted

    def _check_deadline(self, count: int, now: float, deadline: float, priority: int, busy_s: float) -> None:
        left = deadline - now
        if left <= 0:
            raise Refusal("deadline_exceeded", "the deadline had passed before the request was queued")
        needed = self.predicted_s(count, now, priority, busy_s)
        if needed is not None and needed * MARGIN > left:
            message = f"the answer would take {needed * 1000:.0f} ms, the request has {left * 1000:.0f} ms"
            raise Refusal("unavailable", message, max(0.0, needed - left))

    def _next(self) -> tuple[R, Entry[R]]:
        """Who gets the next place. Some request waits."""
        self._picked += 1
        waiting = [queue for queue in self._queues.values() if queue]
        queue = waiting[0]
        if len(waiting) > 1 and not self._picked % _EVERY:
            queue = min(waiting, key=lambda queue: next(iter(queue.values())).arrived)
        return next(iter(queue.items()))

    def _send(self, request: R, entry: Entry[R], size: int) -> None:
        was_cut = entry.sent > 0
        entry.sent += size
        self._waiting_items -= size
        self._items[entry.priority] -= size
        if entry.sent == entry.count:
            del self._queues[entry.priority][request]
            self._waiting -= 1
            self._cut -= was_cut
        else:
            self._cut += not was_cut

    def _expire(self, now: float) -> list[R]:
        """Forget the waiting requests whose deadline has come. What runs already is the caller's to time."""
        expired: list[R] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, request = heapq.heappop(self._deadlines)
            if self._waits(request):
                self.cancel(request)
                expired.append(request)
        return expired

    def _ripe_at(self) -> float:
        """When the oldest waiting item has waited long enough, or the beginning of time if a batch is full."""
        if self._waiting_items >= self.max_batch_size:
            return float("-inf")
        if not self.max_queue_delay_s:
            return float("-inf")
        oldest = min(next(iter(queue.values())).arrived for queue in self._queues.values() if queue)
        return oldest + self.max_queue_delay_s

    def _waits(self, request: R) -> bool:
        entry = self._live.get(request)
        return entry is not None and entry.sent < entry.count

    def _drop_stale_deadlines(self) -> None:
        while self._deadlines and not self._waits(self._deadlines[0][2]):
            heapq.heappop(self._deadlines)
