"""A backend as the balancer knows it: where it is, what it is doing, and what it last said about its memory. PURE."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from fleet_balancer.health import Health, HealthRule
from fleet_wire.agent import DeviceMemory, room_bytes
from fleet_wire.balancer import Backend, BackendStatus


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """A host's device memory in bytes at `at` (seconds on the caller's clock); None: unknown.

    `held` is what each model itself holds there: memory that a request for that model finds in place.
    """

    at: float
    used: int | None = None
    total: int | None = None
    held: dict[str, int] = field(default_factory=dict)

    def room_for(self, model: str | None) -> int | None:
        """Bytes that `model` finds: what is free and what it already holds. None: unknown, which is not full."""
        held = 0 if model is None else self.held.get(model, 0)
        return room_bytes(self.used, self.total, held)


class Watcher(Protocol):
    """Who keeps a score of a member and must hear of every change that moves it."""

    def touch(self, member: Member) -> None:
        """`member` has more or fewer requests in flight, or another memory report."""


class Member:
    """One backend. `in_flight` changes only in Pool; `turn` and `pace` belong to the Picker that is its `watcher`.

    The watcher stands here and not in a claim's pool: a host may change pools with requests in flight.
    """

    __slots__ = (
        "address",
        "authorization",
        "draining",
        "errors",
        "health",
        "host",
        "in_flight",
        "name",
        "pace",
        "pool",
        "port",
        "report",
        "requests",
        "spec",
        "turn",
        "watcher",
        "weight",
    )

    def __init__(self, spec: Backend, rule: HealthRule) -> None:
        self.name = spec.name
        self.address = spec.address
        self.host, self.port = address_of(spec.address)
        self.health = Health(rule)
        self.in_flight = 0
        self.requests = 0
        self.errors = 0
        self.report: MemoryReport | None = None
        self.turn = 0
        self.pace = 0.0
        self.watcher: Watcher | None = None
        self.update(spec)

    def update(self, spec: Backend) -> None:
        """Take over what may change while the backend stays the same process."""
        self.spec = spec
        self.pool = spec.pool
        self.weight = spec.weight
        self.draining = spec.state == "draining"
        self.authorization = f"authorization: Bearer {spec.token}\r\n".encode() if spec.token else None

    @property
    def usable(self) -> bool:
        return self.health.healthy and not self.draining

    def changed(self) -> None:
        """Tell the watcher."""
        if self.watcher is not None:
            self.watcher.touch(self)

    def lacks(self, model: str | None, need: int, now: float, stale_s: float) -> bool:
        """Whether this host is known, by a report younger than `stale_s`, to lack `need` bytes for `model`."""
        report = self.report
        if report is None or now - report.at > stale_s:
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
            error=self.health.error,
            report_age_s=None if report is None else max(0.0, now - report.at),
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
