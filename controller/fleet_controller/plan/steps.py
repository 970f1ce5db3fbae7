"""Plan: from what is and what is wanted to the steps that close the gap. PURE, and level-triggered.

It looks at what is now and never at what it said before, so a restart is nothing special and a step that was
not taken comes again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from fleet_controller.lifecycle import GOING_DOWN, STARTING_UP, HostState
from fleet_controller.plan.choice import Market, to_start, to_stop
from fleet_controller.records import HostRecord
from fleet_controller.spec import HostSpec

StepKind = Literal["start", "stop", "inspect"]

# Losing more than this share (and more than three hosts) at once points at the network or at us, not at the hosts:
# nothing is stopped then, and starts come one at a time (Kubernetes cluster-autoscaler's limits).
MASS_LOSS_SHARE = 0.45
MASS_LOSS_HOSTS = 3
# What serves, or will.
SERVES_SOON = STARTING_UP | {HostState.READY}
# Share of the running hosts that one decision may stop, but always at least one host.
STOP_SHARE = 0.10
# Why a host is stopped to be started again with another release, where no other host can take over meanwhile.
IN_PLACE = "its release is outdated and no host is free"


@dataclass(frozen=True)
class Step:
    """One thing to do with one host, and why."""

    kind: StepKind
    host: str
    pool: str
    reason: str


@dataclass(frozen=True)
class PoolView:
    """What plan looks at, for one pool. `hosts` are those that it has, or that are only for it, as in fleet.yaml.

    `free` ones it may start too, unless another pool is first. `sought` maps hosts of it to whom they are given, a
    pool that lacks a server and could use them: they go first, but not within `keep_s` of becoming ready. `extra`
    hosts are started beyond `desired`, to take over from sought ones. `floor` is the least number of servers now,
    `hurry` whether time counts more than money.
    `reason` is the decision's sentence. `busy` hosts have an open action. `silent` maps hosts that do not answer (or
    say that they failed) to what was heard; `mute` ones did not answer at all. `roomless` hosts lack the device memory
    that a model of the pool needs.
    `stopped` counts the stops already begun since the last decision.
    """

    name: str
    hosts: tuple[HostSpec, ...]
    records: Mapping[str, HostRecord]
    desired: int
    reason: str
    release: str
    busy: frozenset[str] = frozenset()
    silent: Mapping[str, str] = field(default_factory=dict)
    roomless: frozenset[str] = frozenset()
    mute: frozenset[str] = frozenset()
    in_flight: Mapping[str, int] = field(default_factory=dict)
    stopped: int = 0
    free: tuple[HostSpec, ...] = ()
    sought: Mapping[str, str] = field(default_factory=dict)
    keep_s: float = 0.0
    extra: int = 0
    floor: int = 0
    hurry: bool = False
    market: Market = field(default_factory=Market)

    def record(self, host: HostSpec) -> HostRecord:
        known = self.records.get(host.name)
        return HostRecord(host.name) if known is None else known

    def idle(self, *states: HostState) -> list[HostSpec]:
        """Hosts in one of `states` that no action is working on."""
        return self._idle_of(self.hosts, *states)

    def startable(self, now: float) -> list[HostSpec]:
        """Hosts that nothing runs on and that may be started at `now`."""
        return [
            h
            for h in self._idle_of((*self.hosts, *self.free), HostState.OFF, HostState.FAILED)
            if not self.record(h).cordoned and self.record(h).retry_at <= now
        ]

    def serving(self) -> list[HostSpec]:
        """Ready hosts that are to stay and have room for the pool's models, of whatever release."""
        return [
            h
            for h in self.hosts
            if (r := self.record(h)).state is HostState.READY
            and not r.cordoned
            and h.name not in self.roomless
        ]

    def _idle_of(self, hosts: Iterable[HostSpec], *states: HostState) -> list[HostSpec]:
        return [h for h in hosts if self.record(h).state in states and h.name not in self.busy]

    def count(self, states: Iterable[HostState]) -> int:
        wanted = frozenset(states)
        return sum(self.record(h).state in wanted for h in self.hosts)


def steps(view: PoolView, goal: str, now: float) -> list[Step]:
    """The steps for one pool; `goal` is "up" or "down"."""
    if goal == "down":
        return _with_inspections(view, _shutdown(view, now), now)
    serving = [
        h for h in view.hosts if view.record(h).state is HostState.READY
    ]  # one that is inspected still counts
    leaving = [h for h in serving if view.record(h).cordoned]
    staying = [h for h in serving if not view.record(h).cordoned]
    outdated = [h for h in staying if view.record(h).release != view.release]
    current = [h for h in staying if view.record(h).release == view.release]
    fresh = [h for h in current if h.name not in view.roomless]
    roomless = [h for h in current if h.name in view.roomless]
    coming = view.count(STARTING_UP)

    missing = view.desired + view.extra - len(fresh) - coming
    starts = _starts(view, missing, now)
    stops = [Step("stop", h.name, view.name, "drained by the operator") for h in leaving]
    if len(fresh) >= view.desired:
        stops += [Step("stop", h.name, view.name, f"runs release {view.record(h).release}") for h in outdated]
        stops += [Step("stop", h.name, view.name, "has no room for the pool's model") for h in roomless]
        stops += _surplus(view, fresh, now)
    elif missing > 0 and not starts and outdated and not coming and not _failed(view):
        # no other host can take over: replace in place, one at a time; a failure halts it, for the new release may be
        # what is bad, and then each host that still serves is needed
        stops.append(Step("stop", outdated[0].name, view.name, IN_PLACE))
    free = [step for step in stops if step.host not in view.busy]
    return _with_inspections(view, [*starts, *_bounded(view, free), *_leftovers(view, starts, now)], now)


def mass_loss(view: PoolView) -> bool:
    """Whether so many hosts are out of sight that they are likelier cut off than gone."""
    lost, in_use = out_of_sight(view)
    return lost > MASS_LOSS_HOSTS and lost > MASS_LOSS_SHARE * in_use


def blind(view: PoolView) -> bool:
    """Whether nothing is seen of any host that is in use, however few they are."""
    lost, in_use = out_of_sight(view)
    return 0 < in_use == lost


def out_of_sight(view: PoolView) -> tuple[int, int]:
    """How many hosts neither answer over HTTP nor can be reached, and how many are in use at all."""
    seen_otherwise = frozenset(
        {HostState.OFF, HostState.FAILED, HostState.STOPPING, *STARTING_UP} - {HostState.LOADING}
    )
    lost = sum(
        view.record(h).state is HostState.UNREACHABLE
        or (h.name in view.mute and view.record(h).state not in seen_otherwise)
        for h in view.hosts
    )
    return lost, len(view.hosts) - view.count([HostState.OFF])


def _starts(view: PoolView, missing: int, now: float) -> list[Step]:
    if mass_loss(view):
        missing = min(missing, 1 if view.count(STARTING_UP) == 0 else 0)
    chosen: list[HostSpec] = []
    if missing > 0:
        steady = [h for h in view.hosts if not h.spot and view.record(h).state in SERVES_SOON]
        lacks = view.floor - len(steady)
        ranked = to_start(view.startable(now), view.records, view.market, lacks, view.hurry)
        chosen = ranked[:missing]
    # a start that was broken off, by a `down` that was taken back, is taken up again; it counts as coming already
    return [Step("start", h.name, view.name, view.reason) for h in (*view.idle(*STARTING_UP), *chosen)]


def _leftovers(view: PoolView, starts: list[Step], now: float) -> list[Step]:
    """Failed hosts that are not started again: what may still run there, after a stop that failed say, is stopped, and
    a machine that was switched on for nothing is switched off."""
    if mass_loss(view):
        return []
    chosen = {step.host for step in starts}
    return [
        Step("stop", h.name, view.name, "it failed and is not needed; what may still run there is stopped")
        for h in view.idle(HostState.FAILED)
        if (view.record(h).action_id is not None or h.power.driver != "none")
        and view.record(h).retry_at <= now
        and h.name not in chosen
    ]


def _failed(view: PoolView) -> bool:
    records = [view.record(h) for h in view.hosts]
    return any(r.state is HostState.FAILED and not r.cordoned for r in records)


def _surplus(view: PoolView, fresh: list[HostSpec], now: float) -> list[Step]:
    """Whom to stop of what is too many: hosts that another pool lacks, then by choice.py; protected ones never."""
    surplus = len(fresh) - view.desired
    if surplus <= 0:
        return []
    steady = sum(not h.spot for h in fresh)
    ranked = to_stop(fresh, view.records, view.market, view.in_flight, steady, view.floor)
    wanted = [h for h in ranked if h.name in view.sought]
    # one that was borrowed a moment ago is kept for a while, and nobody goes in its place
    kept = {h.name for h in wanted if now - view.record(h).since < view.keep_s}
    given = [h for h in wanted if h.name not in kept]
    others = [h for h in ranked if h.name not in view.sought]
    chosen = [*given, *others][: max(0, surplus - len(kept))]
    return [Step("stop", h.name, view.name, _farewell(view, h, len(fresh))) for h in chosen]


def _farewell(view: PoolView, host: HostSpec, has: int) -> str:
    whom = view.sought.get(host.name)
    if whom is None:
        return view.reason
    return f"gave {host.name} {whom}: {view.name} needs {view.desired}, has {has}"


def _bounded(view: PoolView, stops: list[Step]) -> list[Step]:
    return [] if blind(view) else stops[: stops_left(view)]


def stops_left(view: PoolView) -> int:
    """At most max(1, 10 %) of the running hosts go per decision, and none while half the fleet is out of sight."""
    if mass_loss(view):
        return 0
    going = max(view.stopped, view.count(GOING_DOWN))
    running = view.count([HostState.READY]) + view.count(GOING_DOWN)
    return max(0, max(1, math.floor(STOP_SHARE * running)) - going)


def _with_inspections(view: PoolView, wanted: list[Step], now: float) -> list[Step]:
    """Look at whom nothing was heard of, but for those that go anyway: a stop finds out by itself."""
    found = [
        Step("inspect", h.name, view.name, view.silent[h.name])
        for h in view.idle(HostState.READY, HostState.LOADING)
        if h.name in view.silent
    ]
    lost = [h for h in view.idle(HostState.UNREACHABLE) if view.record(h).retry_at <= now]
    found += [Step("inspect", h.name, view.name, "was unreachable") for h in lost]
    going = {step.host for step in wanted}
    return [*(step for step in found if step.host not in going), *wanted]


def _shutdown(view: PoolView, now: float) -> list[Step]:
    """Everything at once. What is out of sight is stopped when an inspection finds it again, but where its power can be
    switched: that ends what runs there without anybody being reached."""
    hosts = view.idle(*(set(HostState) - {HostState.OFF, HostState.UNREACHABLE}))
    hosts += [h for h in view.idle(HostState.UNREACHABLE) if h.power.driver != "none"]
    return [
        Step("stop", h.name, view.name, "the fleet goes down")
        for h in hosts
        if view.record(h).retry_at <= now
    ]
