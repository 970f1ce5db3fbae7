"""Where a pool's requests wait: who may, who is told at once that it makes no sense, and when to come back. PURE.

The queue says in which order (queue.py), the learned drain rate how long it takes (drain.py). A request is turned away
at once where its deadline comes before its turn can, or where all places are taken and nobody has to give one up: with
429 where its tenant has more of the places than its share, else 503, and with the predicted wait as Retry-After.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from fleet_balancer.ask import Ask
from fleet_balancer.member.member import Member
from fleet_balancer.waiting.drain import DrainRate, retry_after_s
from fleet_balancer.waiting.figures import Figures
from fleet_balancer.waiting.queue import Queue
from fleet_balancer.waiting.rank import Ticket
from fleet_wire.balancer import Figure, PoolConfig
from fleet_wire.refusal import Refusal


class Lobby:
    """One pool's. `tickets` is asked for its truth and length only, at each request."""

    def __init__(self, config: PoolConfig) -> None:
        self.queue = Queue()
        self.tickets = self.queue.tickets
        self.figures = Figures()
        self.drain = DrainRate()
        self._members: Sequence[Member] = ()
        self._hosts = 0
        self._known: frozenset[str] = frozenset()
        self.config = config

    def configure(self, config: PoolConfig, members: Sequence[Member]) -> None:
        """The pool's configuration and hosts: which models make a difference to who can take a request."""
        self.config = config
        self._members = members
        known = {model.name for model in config.models}
        known.update(text for member in members for names in member.spec.models.items() for text in names)
        if known != self._known:
            self._known = frozenset(known)
            self.queue.sort_again(lambda ticket: self._lane(ticket.model, ticket.ask))

    def hosts(self, count: int) -> None:
        """So many hosts may take requests now."""
        if count != self._hosts:
            self.drain.resized(self._hosts, count)
            self._hosts = count

    def look(self, now: float, done: int) -> None:
        """Learn the drain rate. `done`: the pool's running count of requests that have left their host."""
        self.drain.look(now, done, bool(self.tickets), bool(self._hosts))

    def blocks(self, model: str | None, ask: Ask | None) -> bool:
        """Whether somebody waits for the same who comes before a newcomer."""
        return self.queue.blocks(self._lane(model, ask), 0 if ask is None else ask.priority)

    def enter(self, ticket: Ticket, now: float, done: int) -> tuple[Ticket, Refusal] | None:
        """Queue a request; who loses its place to it. Raises Refusal where it may not wait."""
        if self.tickets:
            self.look(now, done)
        else:
            self.drain.begin(now, done)
        lane = self._lane(ticket.model, ticket.ask)
        if ticket.deadline < now + (self._wait_s(ticket, lane, now) or 0.0):
            raise self._turned_away(ticket, lane, now, "which is later than this request's deadline")
        out: Ticket | None = None
        if len(self.tickets) >= self.config.queue_size:
            out = self.queue.rival(ticket)
            if out is None:
                raise self._turned_away(ticket, lane, now, "which is as many as may")
            lane_out = self.queue.lane_of(out)
            self.queue.drop(out)
        self.queue.push(ticket, lane, now)
        if out is None:
            return None
        if out.tenant == ticket.tenant:
            then = "which is as many as may, and one of higher priority came"
        else:
            then = "which is as many as may, and another tenant had less than its share"
        return out, self._turned_away(out, lane_out, now, then, out.tenant != ticket.tenant)

    def too_late(self, ticket: Ticket, now: float) -> Refusal:
        """Refuse a request whose time is up."""
        self.figures.refused(ticket)
        name = self.config.name
        if not self._hosts:
            why = self._lack()
        elif any(m.name == ticket.model and m.device_memory_bytes for m in self.config.models):
            why = f"no host of pool {name} has room on its device for model {ticket.model}"
        elif any(member.full for member in self._members):
            why = f"the hosts of pool {name} have as many requests as they may (max_in_flight)"
        else:
            why = f"no host of pool {name} could be reached"
        wait_s = self._wait_s(ticket, self._lane(ticket.model, ticket.ask), now)
        return Refusal("unavailable", f"{why}, and none came in time", self.retry_after_s(wait_s))

    def retry_after_s(self, wait_s: float | None = None) -> float:
        """When to come back. `wait_s`: the predicted wait; None: not known."""
        if wait_s is None:
            return max(1.0, min(10.0, self.config.queue_timeout_s / 4))
        return retry_after_s(wait_s)

    def rows(self) -> list[Figure]:
        return list(self.figures.rows(self.config.name, self.queue))

    def _lane(self, model: str | None, ask: Ask | None) -> Hashable:
        """What decides which hosts can take a request. Names that nobody knows are all one."""
        version = None if ask is None else ask.version
        known = self._known
        return (
            model if model is None or model in known else "",
            version if version is None or version in known else "",
        )

    def _wait_s(self, ticket: Ticket, lane: Hashable, now: float) -> float | None:
        """How long `ticket` would wait, at least; None: not known."""
        rate = self.drain.per_s(now)
        return None if rate is None else self.queue.ahead(ticket, lane) / rate

    def _turned_away(
        self, ticket: Ticket, lane: Hashable, now: float, then: str, greedy: bool | None = None
    ) -> Refusal:
        """`greedy`: its tenant has more than its share (None: look it up)."""
        self.figures.refused(ticket)
        if greedy is None:
            greedy = self.queue.above_its_share(ticket.tenant)
        wait_s = self._wait_s(ticket, lane, now)
        about = "" if wait_s is None else f", about {wait_s:.2g} s"
        why = (
            f"{len(self.tickets)} requests wait already for a host of pool {self.config.name}{about}, {then}"
        )
        if not self._hosts:
            why = f"{self._lack()}, and {why}"
        return Refusal("overloaded" if greedy else "unavailable", why, self.retry_after_s(wait_s))

    def _lack(self) -> str:
        """Why there is no host."""
        if not self._members:
            return f"pool {self.config.name} has no host"
        return f"none of the {len(self._members)} hosts of pool {self.config.name} is healthy"

    def __repr__(self) -> str:
        return f"<Lobby {self.config.name} {self.queue!r}>"
