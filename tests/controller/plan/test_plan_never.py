"""What no plan does, whatever the fleet looks like."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_controller.lifecycle import STARTING_UP, HostState
from fleet_controller.plan import PoolView, mass_loss, steps
from fleet_controller.records import HostRecord
from fleet_controller.spec import HostSpec

NOW = 1_790_000_000.0
NAMES = [f"h{n}" for n in range(24)]
SPECS = [
    HostSpec.model_validate(
        {"name": n, "address": "local", "protect": i % 5 == 4, "price_per_hour": [None, 1.0, 2.5][i % 3]}
    )
    for i, n in enumerate(NAMES)
]

record = st.builds(
    HostRecord,
    name=st.just(""),
    state=st.sampled_from(sorted(HostState)),
    release=st.sampled_from(["old", "new", None]),
    failures=st.integers(0, 5),
    retry_at=st.sampled_from([0.0, NOW, NOW + 60]),
    cordoned=st.sampled_from([False, False, False, True]),
)


@st.composite
def views(draw: st.DrawFn) -> PoolView:
    count = draw(st.integers(0, len(NAMES)))
    hosts = tuple(SPECS[:count])
    names = [h.name for h in hosts]
    some = st.frozensets(st.sampled_from(names), max_size=count) if names else st.just(frozenset())
    records = {n: replace(draw(record), name=n) for n in names if draw(st.integers(0, 20))}
    return PoolView(
        name="default",
        hosts=hosts,
        records=records,
        desired=draw(st.integers(0, len(NAMES) + 2)),
        reason="the decision",
        release="new",
        busy=draw(some),
        silent=dict.fromkeys(draw(some), "does not answer"),
        roomless=draw(some),
        in_flight=dict.fromkeys(draw(some), draw(st.integers(0, 9))),
        stopped=draw(st.integers(0, 2)),
    )


@settings(max_examples=150, deadline=None)
@given(views(), st.sampled_from(["up", "down"]))
def test_no_host_gets_two_steps_and_a_busy_one_gets_none(view: PoolView, goal: str) -> None:
    found = steps(view, goal, NOW)
    hosts = [s.host for s in found]
    assert len(hosts) == len(set(hosts))
    assert not set(hosts) & view.busy
    assert set(hosts) <= {h.name for h in view.hosts}
    assert found == steps(view, goal, NOW)


@settings(max_examples=150, deadline=None)
@given(views())
def test_starts_fill_the_gap_and_no_more(view: PoolView) -> None:
    started = [s.host for s in steps(view, "up", NOW) if s.kind == "start"]
    broken_off = {h.name for h in view.idle(*STARTING_UP)}
    assert broken_off <= set(started)
    starting = [name for name in started if name not in broken_off]
    serving = [
        h
        for h in view.hosts
        if view.record(h).state is HostState.READY
        and not view.record(h).cordoned
        and view.record(h).release == view.release
        and h.name not in view.roomless
    ]
    assert len(starting) <= max(0, view.desired - len(serving) - view.count(STARTING_UP))
    for name in starting:
        was = view.records.get(name, HostRecord(name))
        assert was.state in (HostState.OFF, HostState.FAILED)
        assert not was.cordoned and was.retry_at <= NOW


@settings(max_examples=150, deadline=None)
@given(views())
def test_stops_leave_what_is_wanted_and_never_go_fast(view: PoolView) -> None:
    stops = [s for s in steps(view, "up", NOW) if s.kind == "stop"]
    serving = [h for h in view.hosts if view.record(h).state is HostState.READY]
    leaving = view.count([HostState.DRAINING, HostState.STOPPING])
    assert len(stops) <= max(1, (len(serving) + leaving) // 10)
    if mass_loss(view):
        assert not stops
    chosen = [s.host for s in stops if s.reason == view.reason]
    assert not any(h.protect for h in view.hosts if h.name in chosen)
    if chosen:
        fresh = {
            h.name
            for h in view.hosts
            if view.record(h).state is HostState.READY
            and not view.record(h).cordoned
            and view.record(h).release == view.release
        } - view.roomless
        assert len(fresh - {s.host for s in stops}) >= view.desired
    for step in stops:
        assert view.record(next(h for h in view.hosts if h.name == step.host)).state is HostState.READY


@settings(max_examples=150, deadline=None)
@given(views())
def test_down_starts_nothing_and_stops_all_that_can_be_stopped(view: PoolView) -> None:
    found = steps(view, "down", NOW)
    assert not [s for s in found if s.kind == "start"]
    stopped = {s.host for s in found if s.kind == "stop"}
    for host in view.hosts:
        was = view.record(host)
        on = was.state not in (HostState.OFF, HostState.UNREACHABLE)
        if on and host.name not in view.busy and was.retry_at <= NOW:
            assert host.name in stopped
