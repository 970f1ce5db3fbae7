"""Who waits for a host, who is next, and who gives up its place. PURE.

The highest priority is served first. So that the others do not wait for ever, of TURN requests served in a row one is
of a lower priority that waits, those taking turns: each comes once in TURN x (their number) at least. Within a priority
tenants share fairly (rank.py).

Where there is no more room, the tenant that waits most for its share gives way (longest queue drop: Suter et al. 1998),
never one that waits for less.

A step costs O(log n) in those who wait, times the lanes in use; asking whether anybody waits costs a look at `tickets`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator
from heapq import heapify, heappop, heappush, heapreplace

from fleet_balancer.ask import PRIORITIES
from fleet_balancer.waiting.rank import Flow, Rank, Ticket

TURN = 10


class Queue:
    """Waiting requests. `tickets` holds them in the order in which they came; only Queue changes it."""

    def __init__(self) -> None:
        self.tickets: dict[Ticket, None] = {}
        self._ranks = [Rank(priority) for priority in reversed(PRIORITIES)]
        self._held: dict[str | None, _Held] = {}
        self._weight = 0.0
        # Entries may be too heavy or stale; they are put right where they come up.
        self._heaviest: list[tuple[float, int, _Held]] = []
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._seq = 0
        # Requests served in a row while one of a lower priority waited; when a lower priority last had its turn.
        self._passed = 0
        self._turn = 0

    def push(self, ticket: Ticket, lane: Hashable, now: float) -> None:
        """`ticket` waits from `now` on. `lane`: see rank.py."""
        self._seq = ticket.seq = self._seq + 1
        ticket.since = now
        self.tickets[ticket] = None
        self._rank(ticket.priority).push(ticket, lane)
        heappush(self._deadlines, (ticket.deadline, ticket.seq, ticket))
        if len(self._deadlines) > 64 + 2 * len(self.tickets):
            self._deadlines = [(t.deadline, t.seq, t) for t in self.tickets]
            heapify(self._deadlines)
        held = self._held.get(ticket.tenant)
        if held is None:
            held = self._held[ticket.tenant] = _Held(ticket.tenant, ticket.share)
            self._weight += held.share
        held.waiting += 1
        heappush(self._heaviest, (-held.load, ticket.seq, held))
        if len(self._heaviest) > 64 + 4 * len(self._held):
            self._heaviest = [(-h.load, i, h) for i, h in enumerate(self._held.values())]
            heapify(self._heaviest)

    def next(self, stuck: Collection[Hashable] = ()) -> Ticket | None:
        """Whose turn it is, lanes in `stuck` left out; it goes on waiting until take()."""
        for rank in self._order():
            ticket = rank.head(stuck)
            if ticket is not None:
                return ticket
        return None

    def lane_of(self, ticket: Ticket) -> Hashable:
        return _flow_of(ticket).line.lane

    def take(self, ticket: Ticket) -> None:
        """`ticket` is served: its tenant pays for it."""
        flow = _flow_of(ticket)
        rank = flow.line.rank
        if any(higher.waiting for higher in self._ranks[: -1 - rank.priority]):
            self._passed = 0
            self._turn = rank.turn = self._turn + 1
        elif rank.waiting < len(self.tickets):
            self._passed += 1
        else:
            self._passed = 0
        rank.charge(flow.tenant)
        self.drop(ticket)

    def drop(self, ticket: Ticket) -> None:
        """`ticket` stops waiting without having been served."""
        del self.tickets[ticket]
        flow = _flow_of(ticket)
        ticket.flow = None
        flow.line.rank.drop(ticket, flow)
        held = self._held[ticket.tenant]
        held.waiting -= 1
        if not held.waiting:
            del self._held[ticket.tenant]
            self._weight = self._weight - held.share if self._held else 0.0

    def expired(self, now: float) -> list[Ticket]:
        """Those whose deadline has come; they wait no more."""
        late: list[Ticket] = []
        heap = self._deadlines
        while heap and heap[0][0] <= now:
            ticket = heappop(heap)[2]
            if ticket.flow is not None:
                self.drop(ticket)
                late.append(ticket)
        return late

    def blocks(self, lane: Hashable, priority: int) -> bool:
        """Whether someone of this or a higher priority waits in `lane`."""
        return any(lane in rank.lines for rank in self._ranks[: len(PRIORITIES) - priority])

    def ahead(self, ticket: Ticket, lane: Hashable) -> float:
        """How many are served before `ticket`, if it began to wait now: an estimate that only counts its own lane."""
        rank = self._rank(ticket.priority)
        line = rank.lines.get(lane)
        tenant = rank.tenants.get(ticket.tenant)
        own = 0 if tenant is None else tenant.waiting
        weight = rank.weight if own else rank.weight + ticket.share
        # Each of the tenant's own costs a round, and so do the others once more.
        fair = min(0.0 if line is None else line.waiting, (own + 1) * weight / ticket.share - 1.0)
        higher = self._ranks[: -1 - rank.priority]
        before = sum(one.lines[lane].waiting for one in higher if lane in one.lines)
        if not before:
            return fair
        # The highest that waits leaves the others their turns.
        others = sum(one.waiting > 0 or one is rank for one in self._ranks) - 1
        return min(before + fair, (fair + 1.0) * TURN * others)

    def rival(self, ticket: Ticket) -> Ticket | None:
        """Who gives up its place for `ticket`; None: nobody.

        It is the youngest of the lowest priority of the tenant that waits most for its share, where that stays above
        what `ticket`'s tenant then has; else one of its own tenant of lower priority.
        """
        own = self._held.get(ticket.tenant)
        load = ((0 if own is None else own.waiting) + 1) / ticket.share
        heaviest = self._most()
        if heaviest is not None and heaviest is not own and load < heaviest.load:
            return self._youngest(heaviest.tenant, PRIORITIES[-1])
        return self._youngest(ticket.tenant, ticket.priority - 1)

    def above_its_share(self, tenant: str | None) -> bool:
        """Whether `tenant` has more of those that wait than its share among the tenants that do."""
        held = self._held.get(tenant)
        return held is not None and held.load * self._weight > len(self.tickets) * (1.0 + 1e-9)

    def sort_again(self, lane_of: Callable[[Ticket], Hashable]) -> None:
        """Which lane a request belongs to has changed, nothing else has."""
        for rank in self._ranks:
            rank.lines.clear()
        for ticket in self.tickets:
            self._rank(ticket.priority).put(ticket, lane_of(ticket))

    def by_tenant(self) -> Iterator[tuple[str | None, int]]:
        """How many wait of each tenant that does."""
        return ((tenant, held.waiting) for tenant, held in self._held.items())

    def waiting_at(self, priority: int) -> int:
        return self._rank(priority).waiting

    def _rank(self, priority: int) -> Rank:
        return self._ranks[-1 - priority]

    def _order(self) -> Iterator[Rank]:
        """Priorities in the order in which they are asked for their next request."""
        ranks = [rank for rank in self._ranks if rank.waiting]
        if self._passed >= TURN - 1 and len(ranks) > 1:
            due = min(ranks[1:], key=lambda rank: rank.turn)
            yield due
            ranks.remove(due)
        yield from ranks

    def _most(self) -> _Held | None:
        """The tenant that waits most for its share."""
        heap = self._heaviest
        while heap:
            level, seq, held = heap[0]
            if held.waiting and -level == held.load:
                return held
            if held.waiting:
                heapreplace(heap, (-held.load, seq, held))
            else:
                heappop(heap)
        return None

    def _youngest(self, tenant: str | None, highest: int) -> Ticket | None:
        """Who came last of the lowest priority at which `tenant` waits, up to `highest`."""
        for rank in reversed(self._ranks):
            if rank.priority > highest:
                break
            ticket = rank.youngest(tenant)
            if ticket is not None:
                return ticket
        return None

    def __repr__(self) -> str:
        return f"<Queue {len(self.tickets)} requests of {len(self._held)} tenants>"


class _Held:
    """How much of the queue a tenant holds."""

    __slots__ = ("share", "tenant", "waiting")

    def __init__(self, tenant: str | None, share: float) -> None:
        self.tenant = tenant
        self.share = share
        self.waiting = 0

    @property
    def load(self) -> float:
        return self.waiting / self.share


def _flow_of(ticket: Ticket) -> Flow:
    if ticket.flow is None:
        raise RuntimeError("this request does not wait")
    return ticket.flow
