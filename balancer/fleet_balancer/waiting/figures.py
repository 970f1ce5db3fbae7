"""How tenants and priorities fare, for metrics. PURE.

A tenant's name may come from a client: the first TENANTS of a pool have rows of their own, all further ones share one,
so that nobody can fill the metrics, and a counter only grows.
"""

from __future__ import annotations

from collections.abc import Iterator

from fleet_balancer.ask import PRIORITIES
from fleet_balancer.waiting.queue import Queue
from fleet_balancer.waiting.rank import Ticket
from fleet_wire.balancer import Figure

TENANTS = 50
OTHER = "other"


class _Row:
    """`placed`: given to a host. `waited`: those of them that had to wait, `waited_s` seconds in all. `refused`: turned
    away instead of waiting, or after it."""

    __slots__ = ("placed", "refused", "waited", "waited_s")

    def __init__(self) -> None:
        self.placed = 0
        self.refused = 0
        self.waited = 0
        self.waited_s = 0.0


class Figures:
    """One pool's. Requests without a tenant count by priority only."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Row] = {}
        self._priorities = [_Row() for _ in PRIORITIES]

    def placed(self, tenant: str | None, times: int = 1) -> None:
        """So many requests were given to hosts."""
        if tenant is not None:
            self._row(tenant).placed += times

    def waited(self, ticket: Ticket, now: float) -> None:
        """A host was found for one that waited."""
        for row in self._rows_of(ticket):
            row.waited += 1
            row.waited_s += now - ticket.since

    def refused(self, ticket: Ticket) -> None:
        for row in self._rows_of(ticket):
            row.refused += 1

    def _rows_of(self, ticket: Ticket) -> Iterator[_Row]:
        yield self._priorities[ticket.priority]
        if ticket.tenant is not None:
            yield self._row(ticket.tenant)

    def _row(self, tenant: str) -> _Row:
        row = self._tenants.get(tenant)
        if row is None:
            name = tenant if len(self._tenants) < TENANTS else OTHER
            row = self._tenants.setdefault(name, _Row())
        return row

    def rows(self, pool: str, queue: Queue) -> Iterator[Figure]:
        """What there is to tell; priorities that nobody used are left out."""
        queued = dict.fromkeys(self._tenants, 0)
        for tenant, waiting in queue.by_tenant():
            if tenant is not None:
                name = tenant if tenant in queued else OTHER
                queued[name] = queued.get(name, 0) + waiting
        for tenant, row in self._tenants.items():
            yield from _figures("tenant", {"pool": pool, "tenant": tenant}, row, queued[tenant])
        for priority, row in zip(PRIORITIES, self._priorities, strict=True):
            waiting = queue.waiting_at(priority)
            if waiting or row.waited or row.refused:
                yield from _figures("priority", {"pool": pool, "priority": str(priority)}, row, waiting)


def _figures(by: str, labels: dict[str, str], row: _Row, queued: int) -> Iterator[Figure]:
    def counter(name: str, text: str, value: float) -> Figure:
        return Figure(
            name=f"{by}_{name}", kind="counter", help=f"{text}, by {by}", labels=labels, value=value
        )

    text = f"Requests that wait for a host, by {by}"
    yield Figure(name=f"{by}_queued", kind="gauge", help=text, labels=labels, value=queued)
    if by == "tenant":
        yield counter("placed", "Requests given to a host", row.placed)
    yield counter("waited", "Requests that waited and then got a host", row.waited)
    yield counter("waited_seconds", "Seconds that those waited in all", row.waited_s)
    yield counter(
        "refused", "Requests turned away for want of a host or of a place in the queue", row.refused
    )
