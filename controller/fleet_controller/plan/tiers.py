"""Tiers: pools that share hosts, and who gets which. PURE, and level-triggered as plan is.

Pools plan one after the other, the higher tier first, then as in fleet.yaml; what one starts is no longer free for the
next. A pool that still lacks servers when nothing is free borrows: a server of a lower tier is drained and stopped,
and then it is free. Nothing is remembered: what goes down and could serve the pool counts as on its way to it, so that
nothing is borrowed twice; the lender gets it back when the borrower has more than it needs.

A lender keeps its floor (min_servers, or what a schedule says). No protected, cordoned, silent or busy host is lent,
and no more at a time than one decision may stop anyway. While a host that a pool shares failed in its hands and does
not serve yet, it borrows no other: a model that does not start must not cost a pool one server after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fleet_controller.lifecycle import GOING_DOWN, STARTING_UP, HostState
from fleet_controller.plan.choice import to_stop
from fleet_controller.plan.steps import PoolView, Step, blind, mass_loss, steps, stops_left
from fleet_controller.records import HostRecord
from fleet_controller.spec import HostSpec


@dataclass(frozen=True)
class Rank:
    """A pool among the others. `tier`: 0 gets hosts before 1. `candidates`: all hosts that may serve it.

    `unfit` ones lack the device memory for its models. `decided`: whether it is known how many it wants.
    """

    view: PoolView
    tier: int = 0
    candidates: frozenset[str] = frozenset()
    unfit: frozenset[str] = frozenset()
    decided: bool = True

    @property
    def name(self) -> str:
        return self.view.name

    @property
    def lacks(self) -> int:
        """Servers that it wants beyond those that it has or that are coming up."""
        view = self.view
        return view.desired - len(view.serving()) - view.count(STARTING_UP) if self.decided else 0


@dataclass
class _Round:
    """What this plan did so far: the step of each host, and which hosts on their way down are spoken for."""

    steps: dict[str, Step] = field(default_factory=dict)
    awaited: set[str] = field(default_factory=set)

    def note(self, steps: Sequence[Step]) -> None:
        self.steps |= {s.host: s for s in steps if s.kind != "inspect"}


def fleet_steps(ranks: Sequence[Rank], goal: str, now: float) -> list[Step]:
    """The steps for all pools; `goal` is "up" or "down"."""
    if goal == "down" or not any(_shares(rank) for rank in ranks):
        return [step for rank in ranks for step in steps(rank.view, goal, now)]
    done, found = _Round(), []
    for rank in sorted(ranks, key=lambda r: r.tier):
        left = [_as_left(r, done) for r in ranks]
        current = next(r for r in left if r.name == rank.name)
        view = _giving_back(current, left, now)
        planned = [_on_loan(step, view) for step in steps(view, goal, now)]
        started = {s.host for s in planned if s.kind == "start"}
        coming = sum(h.name in started for h in view.startable(now))
        planned += _loans(current, current.lacks - coming, left, done)
        done.note(planned)
        found += planned
    return found


def is_loan(record: HostRecord, pool: str) -> bool:
    """Whether the host was borrowed for `pool`, as its reason says until it is off again."""
    return record.reason.startswith(f"borrowed {record.name} from ") and f": {pool} needs " in record.reason


def _shares(rank: Rank) -> bool:
    return len(rank.candidates) > len(rank.view.hosts) or bool(rank.view.free)


def _as_left(rank: Rank, done: _Round) -> Rank:
    """As the pools before it have left it: what they start is theirs, what they stop or borrow goes down."""
    view, moved = rank.view, done.steps
    if not moved:
        return rank
    records = dict(view.records)
    for name, step in moved.items():
        state = HostState.BOOTING if step.kind == "start" else HostState.DRAINING
        records[name] = replace(records.get(name) or HostRecord(name), state=state)
    mine = tuple(h for h in view.hosts if h.name not in moved or moved[h.name].pool == view.name)
    known = {h.name for h in mine}
    mine += tuple(
        h for h in view.free if h.name in moved and moved[h.name].pool == view.name and h.name not in known
    )
    free = tuple(h for h in view.free if h.name not in moved)
    return replace(rank, view=replace(view, records=records, hosts=mine, free=free))


def _giving_back(rank: Rank, ranks: Sequence[Rank], now: float) -> PoolView:
    """The pool's view with the hosts in it that others lack; with one start more where it can do without them."""
    view, sought = rank.view, dict[str, str]()
    others = [r for r in ranks if r.name != rank.name]
    for other in sorted(others, key=lambda r: -r.tier):
        lacks = other.lacks - len(other.view.startable(now)) - len(_leaving(other, ranks))
        if lacks <= 0:
            continue
        mine = [
            h for h in view.serving() if h.name in other.candidates and h.name not in sought and not h.protect
        ]
        ranked = to_stop(mine, view.records, view.market, view.in_flight, len(mine), 0)
        back = "back to" if other.tier > rank.tier else "to"
        sought |= {h.name: f"{back} {other.name}" for h in ranked[:lacks]}
    if not sought:
        return view
    view = replace(view, sought=sought)
    old = any(now - view.records[name].since >= view.keep_s for name in sought)
    if old and rank.lacks == 0 and not view.count(STARTING_UP):
        alone = replace(view, free=tuple(h for h in view.free if _alone(h, others)))
        if any(alone.record(h).state is HostState.OFF for h in alone.startable(now)):
            return replace(alone, extra=1)
    return view


def _alone(host: HostSpec, others: Sequence[Rank]) -> bool:
    return not any(host.name in rank.candidates for rank in others)


def _leaving(rank: Rank, ranks: Sequence[Rank]) -> list[str]:
    """Hosts that go down, whoever has them, and may serve the pool then."""
    return [
        h.name
        for r in ranks
        for h in r.view.hosts
        if h.name in rank.candidates
        if (record := r.view.record(h)).state in GOING_DOWN and not record.cordoned
    ]


def _on_loan(step: Step, view: PoolView) -> Step:
    """A start of a host that was borrowed for this pool says so, as its stop did."""
    record = view.records.get(step.host)
    if step.kind == "start" and record is not None and is_loan(record, view.name):
        return replace(step, reason=record.reason)
    return step


def _loans(rank: Rank, lacks: int, ranks: Sequence[Rank], done: _Round) -> list[Step]:
    """Stops of servers of lower tiers, for a pool that still lacks some after its own starts."""
    view, lower = rank.view, [r for r in ranks if r.tier > rank.tier]
    if lacks <= 0 or not rank.decided or mass_loss(view) or blind(view):
        return []
    troubled = [h for h in view.hosts if (r := view.record(h)).failures and r.state is not HostState.READY]
    if any(not _alone(h, lower) for h in troubled):
        return []
    has = view.desired - lacks
    soon = [name for name in _leaving(rank, ranks) if name not in done.awaited][:lacks]
    done.awaited |= set(soon)
    lacks -= len(soon)
    loans: list[Step] = []
    for lender in sorted(lower, key=lambda r: -r.tier):
        for host in _lendable(lender, rank)[: max(0, lacks - len(loans))]:
            text = f"borrowed {host.name} from {lender.name}: {view.name} needs {view.desired}, has {has}"
            loans.append(Step("stop", host.name, lender.name, f"{text}, no free host is left"))
    return loans


def _lendable(lender: Rank, borrower: Rank) -> list[HostSpec]:
    """The lender's hosts that may go to the borrower now, the one that it misses least first."""
    view = lender.view
    serving = view.serving()
    most = min(len(serving) - view.floor, stops_left(view))
    if most <= 0 or not lender.decided or blind(view):
        return []
    fit = [
        h
        for h in serving
        if h.name in borrower.candidates
        and h.name not in borrower.unfit
        and h.name not in view.busy
        and h.name not in view.silent
    ]
    steady = sum(not h.spot for h in serving)
    ranked = to_stop(fit, view.records, view.market, view.in_flight, steady, view.floor)
    ranked.sort(key=lambda h: view.record(h).release == view.release)  # an outdated one has to stop anyway
    return ranked[:most]
