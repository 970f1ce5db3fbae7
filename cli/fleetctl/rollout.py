"""What becomes of the hosts after a command asked for something, and when there is nothing left to wait for.

No I/O and no clock: it is shown events and status pictures, and times are those in the pictures (Unix seconds).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from fleet_controller.lifecycle import GOING_DOWN, STARTING_UP, HostState
from fleetctl.failure import FAILED, OK, PARTLY, UNREACHABLE

STATES = frozenset(state.value for state in HostState)
BROKEN = frozenset({HostState.FAILED, HostState.UNREACHABLE})
# A picture that stays the same for this many controller intervals is final, where no host is at work:
# the controller had a whole tick to find a replacement.
PATIENCE_INTERVALS = 1.5
# The same, while hosts are still off that the controller could have taken.
PATIENCE_WITH_SPARES_INTERVALS = 2.5


class Happening(Protocol):
    """What is read of a journal event."""

    @property
    def kind(self) -> str: ...
    @property
    def host(self) -> str | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def data(self) -> dict[str, Any]: ...


class Ledger:
    """What happened to each host since a command began, and how long the picture has stayed the same."""

    def __init__(self, hosts: Iterable[str], asked_at: float, interval_s: float) -> None:
        self.hosts = frozenset(hosts)
        self.asked_at = asked_at
        self.interval_s = interval_s
        self.touched: dict[str, HostState] = {}
        self.failures: dict[str, str] = {}
        self._picture: object = None
        self._same_since = 0.0
        self._at = 0.0

    def hear(self, event: Happening) -> None:
        """Take in an event; a host that fails and comes back later is kept as a failure of this command."""
        if event.host not in self.hosts or event.kind not in STATES:
            return
        state = HostState(event.kind)
        self.touched[event.host] = state
        if state in BROKEN:
            self.failures[event.host] = str(event.data.get("error") or event.reason)

    def see(self, status: Mapping[str, Any]) -> bool:
        """Take in a picture; False where it was drawn before the command asked."""
        at = float(status.get("at") or 0.0)
        if at < self.asked_at:
            return False
        picture = (
            {name: (host["state"], host.get("error")) for name, host in self.of_interest(status).items()},
            [(pool["name"], pool.get("desired")) for pool in status.get("pools", [])],
        )
        if picture != self._picture:
            self._picture, self._same_since = picture, at
        self._at = at
        return True

    def same_for(self, intervals: float) -> bool:
        return self._at - self._same_since >= intervals * self.interval_s

    def of_interest(self, status: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        return {host["name"]: host for host in status.get("hosts", []) if host["name"] in self.hosts}


def states(hosts: Mapping[str, Mapping[str, Any]]) -> set[HostState]:
    return {HostState(host["state"]) for host in hosts.values()}


def operation(status: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """What the controller says of the operation that a command began; None: nothing."""
    told = status.get("operation")
    return dict(told) if told and key and told.get("id") == key else None


class Rising:
    """`up`, and `scale` upward or downward: until each pool has what it should have, or no more can be had.

    `operation` names the `up` that the controller is to tell the end of; one that tells nothing is judged by what is
    seen of the hosts.
    """

    def __init__(
        self, ledger: Ledger, pools: Iterable[str], servers: int | None = None, operation: str = ""
    ) -> None:
        self.ledger = ledger
        self.pools = frozenset(pools)
        self.operation = operation
        self._servers = servers

    def settled(self, status: Mapping[str, Any]) -> bool:
        if not self.ledger.see(status):
            return False
        told = operation(status, self.operation)
        if told is not None:
            return bool(told["outcome"])
        mine = [pool for pool in status.get("pools", []) if pool["name"] in self.pools]
        if (
            status.get("goal") != "up"
            or len(mine) < len(self.pools)
            or any(p.get("desired") is None for p in mine)
        ):
            return False
        if self._servers is not None and any(pool["desired"] != self._servers for pool in mine):
            # the autoscaler went on from there, or this picture is older than the answer
            return self.ledger.same_for(PATIENCE_INTERVALS) and not self._unfinished(status)
        return not self._unfinished(status)

    def _unfinished(self, status: Mapping[str, Any]) -> bool:
        for pool in status["pools"]:
            if pool["name"] not in self.pools:
                continue
            hosts = {
                n: h for n, h in self.ledger.of_interest(status).items() if h.get("pool") == pool["name"]
            }
            seen = states(hosts)
            if pool["ready"] >= pool["desired"]:
                if self._servers is not None and (pool["ready"] > pool["desired"] or seen & GOING_DOWN):
                    return True
                continue
            # hosts that it may take over: they are free, or another pool stops them and may do so for this one
            shared = self._shared(status, pool["name"])
            if seen & (STARTING_UP | GOING_DOWN) or states(shared) & GOING_DOWN:
                return True
            spares = any(
                h["state"] == HostState.OFF and not h.get("cordoned")
                for h in (*hosts.values(), *shared.values())
            )
            if spares and not seen & BROKEN:
                return True
            if not self.ledger.same_for(PATIENCE_WITH_SPARES_INTERVALS if spares else PATIENCE_INTERVALS):
                return True
        return False

    def _shared(self, status: Mapping[str, Any], pool: str) -> dict[str, dict[str, Any]]:
        """Hosts of another pool, or of none now, that may serve this one too."""
        return {
            n: h
            for n, h in self.ledger.of_interest(status).items()
            if pool in h.get("pools", ()) and h.get("pool") != pool
        }

    def short(self, status: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The pools that have fewer ready hosts than they should."""
        return [
            pool
            for pool in status.get("pools", [])
            if pool["name"] in self.pools and pool["ready"] < (pool.get("desired") or 0)
        ]

    def _named_exit_code(self, status: Mapping[str, Any], told: Mapping[str, Any]) -> int:
        """Of an `up` for some hosts only: how many servers the pools have is not its business."""
        if not told["failed"] and not told["left"]:
            return OK
        named = frozenset(told["planned"] or told["hosts"])
        hosts = {n: h for n, h in self.ledger.of_interest(status).items() if n in named}
        if told["outcome"] == "halted" or any(h["state"] == HostState.READY for h in hosts.values()):
            return PARTLY
        return UNREACHABLE if states(hosts) == {HostState.UNREACHABLE} else FAILED

    def exit_code(self, status: Mapping[str, Any], timed_out: bool = False) -> int:
        told = operation(status, self.operation)
        if (
            told is not None
            and told["outcome"]
            and (told["hosts"] is not None or told["planned"] is not None)
        ):
            return self._named_exit_code(status, told)
        if told is not None and told["outcome"] == "halted":
            return PARTLY
        ready = sum(pool["ready"] for pool in status.get("pools", []) if pool["name"] in self.pools)
        if not self.short(status) and not timed_out:
            return PARTLY if self.ledger.failures else OK
        if ready:
            return PARTLY
        if timed_out:
            return FAILED
        tried = {
            n for n, h in self.ledger.of_interest(status).items() if n in self.ledger.touched or _broken(h)
        }
        lost = {n for n, h in self.ledger.of_interest(status).items() if h["state"] == HostState.UNREACHABLE}
        return UNREACHABLE if tried and tried <= lost else FAILED


class Falling:
    """`down`: until every host is off, or those that are not can't be reached or stopped.

    `operation` as for Rising; `limited`: only the ledger's hosts are to go, and the fleet stays up.
    """

    def __init__(self, ledger: Ledger, operation: str = "", limited: bool = False) -> None:
        self.ledger = ledger
        self.operation = operation
        self._limited = limited

    def settled(self, status: Mapping[str, Any]) -> bool:
        if not self.ledger.see(status):
            return False
        told = operation(status, self.operation)
        if told is not None and told["outcome"] == "halted":
            return True
        if self._limited:
            return told is not None and bool(told["outcome"])
        if status.get("goal") != "down":
            return False
        left = states(self.left(status))
        return not left or (left <= BROKEN and self.ledger.same_for(PATIENCE_INTERVALS))

    def left(self, status: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The hosts that are not off."""
        return {n: h for n, h in self.ledger.of_interest(status).items() if h["state"] != HostState.OFF}

    def halted(self, status: Mapping[str, Any]) -> bool:
        """Whether it began nothing more because too many hosts had failed."""
        told = operation(status, self.operation)
        return told is not None and told["outcome"] == "halted"

    def exit_code(self, status: Mapping[str, Any], timed_out: bool = False) -> int:
        left = self.left(status)
        if not left:
            return OK
        stopped = [n for n, state in self.ledger.touched.items() if state == HostState.OFF]
        if stopped or self.halted(status):
            return PARTLY
        if timed_out:
            return FAILED
        return UNREACHABLE if states(left) == {HostState.UNREACHABLE} else FAILED


def _broken(host: Mapping[str, Any]) -> bool:
    return host["state"] in BROKEN
