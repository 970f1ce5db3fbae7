"""Changes: what becomes of each host, from the hosts before and after. PURE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fleet_controller.foresight.forecast import Forecast
from fleet_controller.lifecycle import HostState
from fleet_controller.records import HostRecord
from fleet_controller.spec import FleetSpec, HostSpec

Action = Literal["start", "stop", "replace", "none"]


@dataclass(frozen=True)
class Change:
    """`action` says what becomes of `host`; `pool` and `release` from what to what, None: nothing runs there."""

    host: str
    action: Action
    reason: str
    state: HostState
    pool: tuple[str | None, str | None]
    release: tuple[str | None, str | None]


@dataclass(frozen=True)
class Totals:
    """What the hosts that run cost and draw together. None: fleet.yaml says so of no host at all.

    `unpriced` and `unmetered` run too and are not in it, for fleet.yaml says nothing of them.
    """

    cost_per_hour: float | None
    watts: float | None
    hosts: int
    unpriced: tuple[str, ...]
    unmetered: tuple[str, ...]


def changes(seen: Forecast) -> list[Change]:
    """One for each host, in the order of their names."""
    reasons: dict[str, str] = {}
    stopped, started = set[str](), set[str]()
    for step in seen.steps:
        reasons.setdefault(step.host, step.reason)
        (stopped if step.kind == "stop" else started).add(step.host)
    found = []
    for name in sorted(seen.before):
        before, after = seen.before[name], seen.after[name]
        action = _action(before, after, name in stopped and name in started)
        reason = reasons.get(name, "") if action != "none" else _resting(seen, name)
        found.append(
            Change(
                name,
                action,
                reason,
                before.state,
                (_pool(before), _pool(after)),
                (_release(before), _release(after)),
            )
        )
    return found


def _action(before: HostRecord, after: HostRecord, renewed: bool) -> Action:
    was, is_ = _runs(before), after.state is HostState.READY
    if was and is_:
        moved = renewed or before.release != after.release or before.pool != after.pool
        return "replace" if moved or before.state is HostState.FAILED else "none"
    if is_:
        return "start"
    return "stop" if was and after.state is HostState.OFF else "none"


def _runs(record: HostRecord) -> bool:
    """Whether something of ours runs there, or may."""
    return record.state in (HostState.READY, HostState.UNREACHABLE) or (
        record.state is HostState.FAILED and record.action_id is not None
    )


def _resting(seen: Forecast, name: str) -> str:
    state = seen.under_way.get(name)
    if state is not None:
        return f"is {state} already"
    if seen.before[name].state is HostState.UNREACHABLE:
        return "can't be reached; it is looked at first"
    return ""


def _pool(record: HostRecord) -> str | None:
    return record.pool if _runs(record) else None


def _release(record: HostRecord) -> str | None:
    return record.release if _runs(record) else None


def totals(spec: FleetSpec, records: Iterable[HostRecord]) -> Totals:
    """What the hosts that run cost in an hour, energy included where its price is known, and the watts they draw."""
    hosts = [spec.host(record.name) for record in records if _runs(record)]
    kwh = spec.controller.price_per_kwh
    costs = [c for host in hosts if (c := _cost(host, kwh)) is not None]
    watts = [host.watts for host in hosts if host.watts is not None]
    return Totals(
        round(sum(costs), 6) if any(_cost(h, kwh) is not None for h in spec.hosts) else None,
        round(sum(watts), 3) if any(h.watts is not None for h in spec.hosts) else None,
        len(hosts),
        tuple(h.name for h in hosts if _cost(h, kwh) is None),
        tuple(h.name for h in hosts if h.watts is None),
    )


def _cost(host: HostSpec, kwh: float | None) -> float | None:
    parts = [host.price_per_hour, None if kwh is None or host.watts is None else host.watts / 1000.0 * kwh]
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def planned(found: Iterable[Change]) -> Mapping[str, str]:
    """The hosts that change, and how: what a plan file has the controller do."""
    return {change.host: change.action for change in found if change.action != "none"}
