"""Who serves a request, who waits, who is turned away, and what is counted. PURE: `now` is an argument (seconds).

A Claim is one request on one host. It is given back by Pool.settle, the only place where an in-flight count falls.
A Ticket is a request that waits because no host may take it, up to a deadline; lobby.py says who may.

Every request of a pool is in exactly one place:
arrivals = completed + errors + refused + abandoned + in_flight + queued.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Hashable, Iterable
from typing import Protocol

from fleet_balancer.ask import Ask
from fleet_balancer.asking import asking_for
from fleet_balancer.failure.budget import Budget
from fleet_balancer.failure.ejection import LATEST, Ejector
from fleet_balancer.failure.hedge import Hedge
from fleet_balancer.failure.outcome import Outcome as Outcome
from fleet_balancer.member.member import Member, MemoryReport
from fleet_balancer.member.orca import read_load
from fleet_balancer.pick import Picker, picker_for
from fleet_balancer.pick.report import take_report
from fleet_balancer.telemetry.traffic import Traffic
from fleet_balancer.waiting.lobby import Lobby
from fleet_balancer.waiting.rank import Ticket as Ticket
from fleet_wire.balancer import Figure, PoolConfig, PoolStatus
from fleet_wire.histogram import LatencyHistogram
from fleet_wire.refusal import Refusal


class Claim:
    """One request on one host since `at`, until it is settled; it was the `depth`-th in flight there."""

    __slots__ = ("ask", "at", "depth", "member", "model", "pool", "settled")

    def __init__(self, pool: Pool, member: Member, ask: Ask | None, model: str | None, now: float) -> None:
        self.pool = pool
        self.member = member
        self.ask = ask
        self.model = model
        self.at = now
        self.depth = member.load
        self.settled = False

    def __repr__(self) -> str:
        return f"<Claim {self.pool.name} on {self.member.name}{' settled' if self.settled else ''}>"


Served = tuple[Ticket, Claim | Refusal]


class Crowd(Protocol):
    """The other workers, who send requests to the same hosts."""

    def refresh(self, now: float) -> bool:
        """Bring each member's `elsewhere` up to date, unless that was just done; whether any changed."""


class Pool:
    """One pool's members, waiting requests and counters. `stale_s`: age at which a memory report is ignored."""

    def __init__(
        self, config: PoolConfig, rng: random.Random, stale_s: float, zone: str | None = None
    ) -> None:
        self.name = config.name
        self.zone = zone
        self.rng = rng
        self.stale_s = stale_s
        self.members: list[Member] = []
        self.arrivals = 0
        self.completed = 0
        self.errors = 0
        self.refused = 0
        self.abandoned = 0
        self.in_flight = 0
        self._lobby = Lobby(config)
        self.waiting = self._lobby.tickets
        self.crowd: Crowd | None = None
        self._left = 0
        self._histogram = LatencyHistogram()
        self._latencies: list[float] = []
        self._answered: list[Claim] = []
        self._placed: list[Ask] = []
        self._traffic = Traffic()
        self.budget = Budget()
        self.hedge = Hedge()
        self.ejector = Ejector(config.ejection)
        self.configure(config)

    def configure(self, config: PoolConfig) -> None:
        """Take over a new configuration; counters and waiting requests stay."""
        self.config = config
        self._traffic.configure(m.name for m in config.models)
        self.asking = asking_for(config)
        self.ejector.configure(config.ejection)
        self.needs = {m.name: m.device_memory_bytes for m in config.models if m.device_memory_bytes}
        self._picker: Picker = picker_for(config, self.rng, self.stale_s, self.zone)
        self._lobby.configure(config, self.members)
        self.refresh()

    def replace(self, members: Iterable[Member]) -> None:
        """These are the pool's hosts now. Counts live in the members, so who stays keeps them."""
        self.members = list(members)
        self.ejector.replace(self.members)
        self._lobby.configure(self.config, self.members)
        self.refresh()

    def refresh(self, member: Member | None = None, now: float | None = None) -> None:
        """A member's health, state or weight changed, or (None) those of many: only usable members may be picked."""
        moved = self.ejector.reviewed()
        if member is not None:
            self._move([member, *moved], now)
        else:
            self._move((), now)
            self._picker.reset(self.members, now)
        self._lobby.hosts(self._picker.size)

    def _move(self, members: Iterable[Member], now: float | None) -> None:
        """Tell the picker of hosts that were taken out or let in, and whether health counts at all."""
        self._picker.heed(not self.ejector.panics(self.config.panic_share))
        for member in members:
            self._picker.changed(member, now)

    def reported(self, member: Member, report: MemoryReport | None) -> None:
        """A memory report came in; None: the host has none, its memory is unknown."""
        take_report(member, report)
        self._picker.changed(member, None if report is None else report.at)

    def reported_inline(self, member: Member, value: bytes, now: float) -> None:
        """A reply of `member` came with a load report."""
        load = read_load(value, now)
        if load is not None:
            member.inline = load
            self._picker.changed(member, now)

    @property
    def usable(self) -> int:
        """How many hosts take requests, or will once they have room."""
        return self._picker.size

    @property
    def reads_memory(self) -> bool:
        """Whether any decision here depends on device memory."""
        return bool(self.needs) or self.config.routing == "gpu_memory"

    def claim(
        self,
        model: str | None,
        now: float,
        tried: Collection[Member] = (),
        ask: Ask | None = None,
        waited: bool = False,
    ) -> Claim | None:
        """Place one request; None: nobody may take it now, or others wait for the same and come first.

        `tried` are hosts that already failed it: it has had its turn, as has one that `waited`.
        """
        if self.crowd is not None:
            self.crowd.refresh(now)
        if self.waiting and not waited and not tried and self._lobby.blocks(model, ask):
            return None
        member = self._picker.pick(model, now, tried, ask)
        if member is None:
            return None
        member.in_flight += 1
        member.requests += 1
        self.in_flight += 1
        if member.row is not None:
            member.row[member.slot] = member.in_flight
        self._picker.touch(member)  # a member that it picked is its own
        if self.needs:
            self._picker.took(member, model, now)
        if ask is not None:
            self._placed.append(ask)
        return Claim(self, member, ask, model, now)

    def second_claim(
        self, claim: Claim, model: str | None, now: float, tried: Collection[Member] = ()
    ) -> Claim | None:
        """A second claim for the request that has `claim`; None: no other host may take it now, or others wait.

        The pool counts a request once: of the two claims, exactly one has to be settled as "spare".
        """
        if self.waiting:
            return None
        second = self.claim(model, now, {*tried, claim.member}, claim.ask)
        if second is not None:
            self.in_flight -= 1
        return second

    def settle(self, claim: Claim, outcome: Outcome, latency_ms: float = 0.0, now: float = 0.0) -> None:
        """Give a claim back and count how it ended. The latency counts where the outcome is "completed"."""
        if claim.settled:
            raise RuntimeError(f"{claim!r} was given back twice")
        claim.settled = True
        member = claim.member
        member.in_flight -= 1
        self.in_flight -= 1
        if outcome == "completed" and now > claim.at:
            self._picker.observed(member, claim.model, (now - claim.at) * 1000.0, claim.depth, now)
        if member.row is not None:
            member.row[member.slot] = member.in_flight
        if member.watcher is not None:
            member.watcher.touch(member)
        if outcome == "completed":
            self.completed += 1
            self._latencies.append(latency_ms)
            self._answered.append(claim)
            if member.breaker is not None and (moved := self.ejector.succeeded(member, now)):
                self._move(moved, now)
        elif outcome == "rejected":
            self.completed += 1
            self._latencies.append(latency_ms)
            self._answered.append(claim)
        elif outcome in ("error", "busy", "excused", "resent"):
            if outcome == "resent":
                self._traffic.again += 1
            else:
                self.errors += 1
                self._traffic.failed(claim.model)
            member.errors += 1
            if moved := self.ejector.failed(member, outcome, now):
                self._move(moved, now)
        elif outcome == "refused":
            self.refused += 1
        elif outcome == "abandoned":
            self.abandoned += 1
        elif outcome == "spare":
            self.in_flight += 1
            self._traffic.second += 1
        elif outcome == "retry":
            self._traffic.again += 1

    def wait(self, ticket: Ticket, now: float = 0.0) -> list[Served]:
        """Queue a request; who has to give up its place for it.

        Raises Refusal where its deadline comes before its turn can, or where the queue is full and nobody has to.
        """
        try:
            out = self._lobby.enter(ticket, now, self._done)
        except Refusal:
            self.refused += 1
            raise
        if out is None:
            return []
        self.refused += 1
        return [out]

    def leave(self, ticket: Ticket) -> None:
        """The client of a waiting request left."""
        self._lobby.queue.drop(ticket)
        self._left += 1
        self.abandoned += 1

    def freed(self, member: Member, now: float) -> list[Served]:
        """`member` has just given back a claim: who takes its place. To be called while there is anybody waiting."""
        return [] if member.full else self._serve(now, 1)

    def serve_waiting(self, now: float) -> list[Served]:
        """Who stops waiting now: those for whom there is a host, and those past their deadline."""
        return self._serve(now, len(self.waiting))

    def _serve(self, now: float, most: int) -> list[Served]:
        lobby = self._lobby
        queue = lobby.queue
        lobby.look(now, self._done)
        served: list[Served] = []
        for late in queue.expired(now):
            self.refused += 1
            served.append((late, lobby.too_late(late, now)))
        stuck: set[Hashable] = set()
        while most and (ticket := queue.next(stuck)) is not None:
            claim = self.claim(ticket.model, now, (), ticket.ask, waited=True)
            if claim is None:
                stuck.add(queue.lane_of(ticket))
                continue
            queue.take(ticket)
            lobby.figures.waited(ticket, now)
            served.append((ticket, claim))
            most -= 1
        if not self.waiting:
            lobby.look(now, self._done)
        return served

    def dismiss(self) -> list[Served]:
        """The pool is gone: everyone who waits is refused."""
        served: list[Served] = []
        for ticket in list(self.waiting):
            self._lobby.queue.drop(ticket)
            self.refused += 1
            served.append((ticket, Refusal("unavailable", f"pool {self.name} was removed", 1.0)))
        return served

    def latency(self) -> LatencyHistogram:
        """The latencies of completed requests. Recording is an append; the buckets are filled in here."""
        self._histogram.record_all(self._latencies)
        if self.config.hedge:
            self.hedge.learn(self._latencies)
        if self.ejector.watches_latency:
            latest = self._answered[-LATEST:]
            self.ejector.learn([claim.member for claim in latest], self._latencies[-LATEST:])
        if self._answered:
            self._traffic.completed([claim.model for claim in self._answered], self._latencies)
        self._latencies.clear()
        self._answered.clear()
        self._count_placed()
        return self._histogram

    def _count_placed(self) -> None:
        for ask, times in Counter(self._placed).items():  # an API key's requests have one Ask in common
            self._lobby.figures.placed(ask.tenant, times)
        self._placed.clear()

    def advance(self, now: float) -> bool:
        """To be called a few times a second: what time alone changes. True where hosts may take requests again."""
        self.latency()
        moved = self.ejector.advance(now)
        if moved:
            self._move(moved, now)
        return bool(moved)

    def status(self) -> PoolStatus:
        return PoolStatus(
            name=self.name,
            arrivals=self.arrivals,
            completed=self.completed,
            errors=self.errors,
            refused=self.refused,
            abandoned=self.abandoned,
            in_flight=self.in_flight,
            queued=len(self.waiting),
            latency=self.latency().to_wire(),
        )

    def figures(self) -> list[Figure]:
        """How tenants, priorities and models fare, and how often hosts are taken out."""
        self._count_placed()
        rows = (self._lobby.rows(), self.ejector.figures(self.name), self._traffic.rows(self.name))
        return [row for some in rows for row in some]

    def __repr__(self) -> str:
        hosts = f"{sum(m.usable for m in self.members)}/{len(self.members)} hosts"
        return f"<Pool {self.name} {hosts} in_flight={self.in_flight} queued={len(self.waiting)}>"

    @property
    def _done(self) -> int:
        """Requests that have left their host."""
        return self.completed + self.errors + self.abandoned - self._left
