"""A backend as the balancer knows it: where it is, what it is doing, and what it last said about its memory. PURE."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from fleet_balancer.member.breaker import Breaker
from fleet_balancer.member.health import Health, HealthRule
from fleet_balancer.member.shelf import Shelf
from fleet_wire.agent import DeviceMemory, room_bytes
from fleet_wire.balancer import Backend, BackendStatus


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """A host's device memory in bytes at `at` (seconds on the caller's clock); None: unknown.

    `held` is what each model itself holds there: memory that a request for that model finds in place. `busy`: requests
    that the host has in flight or queued, from anybody; `own`: the most that this balancer had there meanwhile.
    """

    at: float
    used: int | None = None
    total: int | None = None
    held: dict[str, int] = field(default_factory=dict)
    busy: int | None = None
    own: int = 0

    def room_for(self, model: str | None) -> int | None:
        """Bytes that `model` finds: what is free and what it already holds. None: unknown, which is not full."""
        held = 0 if model is None else self.held.get(model, 0)
        return room_bytes(self.used, self.total, held)


@dataclass(frozen=True, slots=True)
class InlineLoad:
    """What a host said about its load in a reply's header (see orca.py) at `at`; None: it did not say.

    `memory` is the share of its memory, or key-value cache, that is in use; `capacity_rps` the requests/s it could do.
    """

    at: float
    memory: float | None = None
    capacity_rps: float | None = None


class Watcher(Protocol):
    """Who keeps a score of a member and must hear of every change that moves it."""

    def touch(self, member: Member) -> None:
        """`member` has more or fewer requests in flight."""

    def forget(self, member: Member) -> None:
        """`member` is somebody else's from now on."""


class Member:
    """One backend. `in_flight` changes only in Pool, `elsewhere` is what other workers have in flight there.

    The watcher stands here and not in a claim's pool: a host may change pools with requests in flight. What is set from
    `bucket` on belongs to the Picker that is its `watcher`: `load` is what it has in flight in all, `share` its weight
    by all that moves it, `limit` how many requests it may have at once.
    In `row[slot]`, where there is one, the other workers read how many this one has in flight.
    `breaker` (None: nothing is wrong), `ejected` and `trial` (one request at a time) are set by the pool's Ejector.
    """

    __slots__ = (
        "address",
        "authorization",
        "breaker",
        "bucket",
        "cost_at",
        "cost_ms",
        "counted",
        "draining",
        "draw_at",
        "due",
        "each_s",
        "ejected",
        "elsewhere",
        "errors",
        "foreign",
        "fresh",
        "health",
        "host",
        "in_flight",
        "inline",
        "lag",
        "lag_step",
        "learn_at",
        "limit",
        "load",
        "models",
        "name",
        "pace",
        "placed",
        "pool",
        "port",
        "progress_at",
        "ramp",
        "report",
        "requests",
        "round_s",
        "row",
        "score",
        "seen",
        "share",
        "shelf",
        "since",
        "slot",
        "spec",
        "speed",
        "stuck",
        "trial",
        "turn",
        "watcher",
        "weight",
    )

    def __init__(self, spec: Backend, rule: HealthRule) -> None:
        self.name = spec.name
        self.address = spec.address
        self.host, self.port = address_of(spec.address)
        self.health = Health(rule)
        self.breaker: Breaker | None = None
        self.ejected = False
        self.trial = False
        self.in_flight = 0
        self.requests = 0
        self.errors = 0
        self.elsewhere = 0
        self.row: memoryview | None = None
        self.slot = 0
        self.report: MemoryReport | None = None
        self.inline: InlineLoad | None = None
        self.watcher: Watcher | None = None
        self.bucket: OrderedDict[Member, None] | None = None
        self.draw_at: int | None = None
        self.shelf: Shelf[Member] | None = None
        self.score = 0.0
        self.turn = 0
        self.load = 0
        self.counted = 0
        self.limit: int | None = None
        self.since = 0.0
        self.due: float | None = None
        self.fresh: MemoryReport | None = None
        self.placed: dict[str, tuple[float, int]] | None = None
        self.foreign = 0
        self.share = 1.0
        self.ramp = 1.0
        self.speed = 1.0
        self.lag = self.lag_step = self.learn_at = 0.0
        self.seen = 0
        self.progress_at = self.round_s = self.each_s = self.stuck = 0.0
        self.pace = 0.0
        self.cost_ms = self.cost_at = 0.0
        self.update(spec)

    def update(self, spec: Backend) -> None:
        """Take over what may change while the backend stays the same process."""
        self.spec = spec
        self.pool = spec.pool
        self.weight = spec.weight
        self.models = tuple(sorted(spec.models.items()))
        self.draining = spec.state == "draining"
        self.authorization = f"authorization: Bearer {spec.token}\r\n".encode() if spec.token else None

    @property
    def usable(self) -> bool:
        return self.health.healthy and not self.draining and not self.ejected

    @property
    def full(self) -> bool:
        """Whether it may have no more requests at once; the Picker leaves it out then."""
        limit = self.limit
        return limit is not None and self.in_flight + self.elsewhere + self.foreign >= limit

    def changed(self) -> None:
        """Its in-flight count changed: tell the watcher, and the other workers."""
        if self.row is not None:
            self.row[self.slot] = self.in_flight
        if self.watcher is not None:
            self.watcher.touch(self)

    def lacks(self, model: str | None, need: int, now: float, stale_s: float) -> bool:
        """Whether this host is known, by a report younger than `stale_s`, to lack `need` bytes for `model`."""
        report = self.report
        if report is None or report.at + stale_s <= now:
            return False
        room = report.room_for(model)
        return room is not None and room < need

    def status(self, now: float) -> BackendStatus:
        report = self.report
        return BackendStatus(
            name=self.name,
            pool=self.pool,
            address=self.address,
            state="draining" if self.draining else "active",
            healthy=self.health.healthy,
            in_flight=self.in_flight,
            requests=self.requests,
            errors=self.errors,
            error=self.health.error or (self.breaker.reason if self.breaker and self.ejected else None),
            ejected_s=max(0.0, self.breaker.until - now) if self.breaker and self.ejected else None,
            report_age_s=None if report is None else max(0.0, now - report.at),
            weight=self.share,
            device_memory=DeviceMemory()
            if report is None
            else DeviceMemory(used_bytes=report.used, total_bytes=report.total),
        )

    def __repr__(self) -> str:
        state = "draining" if self.draining else "active" if self.health.healthy else "ejected"
        return f"<Member {self.name} {self.address} {state} in_flight={self.in_flight}>"


def address_of(address: str) -> tuple[str, int]:
    """ "HOST:PORT" or "[V6]:PORT" as host and port. Raises ValueError that says what is wrong."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address!r}: write an IPv6 address in brackets, as [::1]:8080")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host, int(port)
