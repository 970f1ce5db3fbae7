"""All who wait at one priority, and the fair order among their tenants. PURE.

Start-time fair queueing (Goyal, Vin, Cheng 1996), weighted. Each tenant has a start tag, the lowest is next, and being
served moves it on by 1 / share. One that comes, or comes back, starts at the clock: the tag that was served last. Who
is served pays, not who waits: who gave up waiting has paid nothing. Within a tenant: first come, first served.

A lane is what requests have in common that any host can take or none: one model and version. Each has its own line, so
that a request whose model no host can take now does not stand in the way of the others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable
from heapq import heapify, heappop, heappush, heapreplace

from fleet_balancer.ask import Ask

# Tenants remembered, beside twice those that wait. What one was served is forgotten with it.
_KEPT = 1024


class Ticket:
    """A request that waits. `owner` is the caller's own. `since`: when it began to wait (seconds)."""

    __slots__ = ("ask", "deadline", "flow", "model", "owner", "seq", "since")

    def __init__(self, owner: object, model: str | None, deadline: float, ask: Ask | None = None) -> None:
        self.owner = owner
        self.model = model
        self.deadline = deadline
        self.ask = ask
        self.seq = 0
        self.since = 0.0
        self.flow: Flow | None = None

    @property
    def tenant(self) -> str | None:
        return None if self.ask is None else self.ask.tenant

    @property
    def priority(self) -> int:
        return 0 if self.ask is None else self.ask.priority

    @property
    def share(self) -> float:
        return 1.0 if self.ask is None else self.ask.share


class Tenant:
    """A tenant at one priority. `start` is its tag."""

    __slots__ = ("share", "start", "waiting")

    def __init__(self, share: float, start: float) -> None:
        self.share = share
        self.start = start
        self.waiting = 0


class Flow:
    """One tenant's requests in one line. `listed`: it has its entry in the line's heap."""

    __slots__ = ("line", "listed", "name", "tenant", "tickets")

    def __init__(self, line: Line, name: str | None, tenant: Tenant) -> None:
        self.line = line
        self.name = name
        self.tenant = tenant
        self.tickets: OrderedDict[Ticket, None] = OrderedDict()
        self.listed = False


class Line:
    """The flows of one lane at one priority. An entry of `heap` may be too low, never too high: a tag only grows."""

    __slots__ = ("flows", "heap", "lane", "rank", "waiting")

    def __init__(self, rank: Rank, lane: Hashable) -> None:
        self.rank = rank
        self.lane = lane
        self.flows: dict[str | None, Flow] = {}
        self.heap: list[tuple[float, int, Flow]] = []
        self.waiting = 0

    def put(self, ticket: Ticket, tenant: Tenant) -> None:
        flow = self.flows.get(ticket.tenant)
        if flow is None:
            flow = self.flows[ticket.tenant] = Flow(self, ticket.tenant, tenant)
        flow.tickets[ticket] = None
        ticket.flow = flow
        self.waiting += 1
        if not flow.listed:
            flow.listed = True
            heappush(self.heap, (tenant.start, ticket.seq, flow))

    def head(self) -> tuple[float, int, Ticket]:
        """The next one, with its tag and number to compare it by; a line that is there has one."""
        heap = self.heap
        while True:
            start, _, flow = heap[0]
            if not flow.tickets:
                heappop(heap)
                continue
            ticket = next(iter(flow.tickets))
            if flow.tenant.start == start:
                return start, ticket.seq, ticket
            heapreplace(heap, (flow.tenant.start, ticket.seq, flow))

    def drop(self, ticket: Ticket, flow: Flow) -> None:
        self.waiting -= 1
        del flow.tickets[ticket]
        if not flow.tickets:
            # Its entry in the heap goes when it comes up; if the tenant comes back before, that is another flow.
            del self.flows[flow.name]
            if len(self.heap) > 64 + 2 * len(self.flows):
                self.heap = [entry for entry in self.heap if entry[2].tickets]
                heapify(self.heap)


class Rank:
    """All who wait at one priority. `clock` is the tag served last, `turn` says when it last overtook a higher one."""

    __slots__ = ("clock", "lines", "priority", "tenants", "turn", "waiting", "weight")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.waiting = 0
        self.weight = 0.0
        self.clock = 0.0
        self.turn = 0
        self.tenants: dict[str | None, Tenant] = {}
        self.lines: dict[Hashable, Line] = {}

    def push(self, ticket: Ticket, lane: Hashable) -> None:
        tenant = self.tenants.get(ticket.tenant)
        if tenant is None:
            tenant = self.tenants[ticket.tenant] = Tenant(ticket.share, self.clock)
        if not tenant.waiting:
            tenant.share = ticket.share
            tenant.start = max(tenant.start, self.clock)
            self.weight += tenant.share
        tenant.waiting += 1
        self.waiting += 1
        self.put(ticket, lane)

    def put(self, ticket: Ticket, lane: Hashable) -> None:
        """Into its line."""
        line = self.lines.get(lane)
        if line is None:
            line = self.lines[lane] = Line(self, lane)
        line.put(ticket, self.tenants[ticket.tenant])

    def charge(self, tenant: Tenant) -> None:
        """One of its requests is served. One that could not be for a while has no claim to what it missed."""
        self.clock = max(self.clock, tenant.start)
        tenant.start = self.clock + 1.0 / tenant.share

    def drop(self, ticket: Ticket, flow: Flow) -> None:
        tenant = flow.tenant
        flow.line.drop(ticket, flow)
        if not flow.line.waiting:
            del self.lines[flow.line.lane]
        self.waiting -= 1
        tenant.waiting -= 1
        if not tenant.waiting:
            self.weight -= tenant.share
        if not self.waiting:
            # Nobody waits: nobody owes anybody anything.
            self.tenants.clear()
            self.clock = self.weight = 0.0
        elif len(self.tenants) > _KEPT + 2 * self.waiting:
            self.tenants = {name: one for name, one in self.tenants.items() if one.waiting}

    def head(self, stuck: Collection[Hashable]) -> Ticket | None:
        """Whose turn it is, lanes in `stuck` left out."""
        best: tuple[float, int, Ticket] | None = None
        for lane, line in self.lines.items():
            if lane not in stuck:
                head = line.head()
                if best is None or head < best:
                    best = head
        return None if best is None else best[2]

    def youngest(self, name: str | None) -> Ticket | None:
        """The last of a tenant's requests."""
        if name not in self.tenants or not self.tenants[name].waiting:
            return None
        flows = [line.flows[name] for line in self.lines.values() if name in line.flows]
        return max((next(reversed(flow.tickets)) for flow in flows), key=lambda ticket: ticket.seq)

    def __repr__(self) -> str:
        return f"<Rank {self.priority} waiting={self.waiting} lanes={len(self.lines)}>"
