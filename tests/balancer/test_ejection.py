"""When a host that passes its probes is taken out, for how long, and what holds whatever happens. No I/O, no clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_balancer.failure.ejection import Ejector
from fleet_balancer.failure.outcome import Outcome
from fleet_balancer.failure.outlier import LEAST, PERSISTS, WINDOW_S, Outliers
from fleet_balancer.member.breaker import MOST_TIMES, TRIALS
from fleet_balancer.member.health import Health, HealthRule
from fleet_balancer.member.member import Member
from fleet_wire.balancer import Backend, Ejection


def members_of(count: int) -> list[Member]:
    made = []
    for i in range(count):
        member = Member(Backend(name=f"h{i}", address=f"h{i}:1"), HealthRule())
        member.health.passed(0.0)
        made.append(member)
    return made


def ejector_of(hosts: int, **rule: Any) -> tuple[Ejector, list[Member]]:
    ejector, members = Ejector(Ejection(**rule)), members_of(hosts)
    ejector.replace(members)
    return ejector, members


def fail(ejector: Ejector, member: Member, times: int, now: float, outcome: Outcome = "error") -> None:
    for _ in range(times):
        ejector.failed(member, outcome, now)


def succeed(ejector: Ejector, member: Member, times: int, now: float) -> None:
    for _ in range(times):
        if member.breaker is not None:
            ejector.succeeded(member, now)


def test_five_failures_in_a_row_take_a_host_out_for_30_seconds() -> None:
    ejector, (a, b, _) = ejector_of(3)
    fail(ejector, a, 4, 1.0)
    assert a.usable
    assert ejector.failed(a, "error", 1.0) == [a]
    assert not a.usable and b.usable
    assert ejector.news() == ["host h0 is ejected for 30 s: 5 failures in a row"]
    assert ejector.advance(30.9) == [] and not a.usable
    assert ejector.advance(31.0) == [a]
    assert a.usable and a.trial
    status = a.status(31.0)
    assert (status.error, status.ejected_s) == (None, None)


def test_the_status_says_why_a_host_is_out_and_for_how_long() -> None:
    ejector, (a, _) = ejector_of(2)
    fail(ejector, a, 5, 1.0)
    status = a.status(11.0)
    assert (status.healthy, status.error, status.ejected_s) == (True, "5 failures in a row", 20.0)


def test_one_success_between_them_and_failures_do_not_count() -> None:
    ejector, (a, _) = ejector_of(2)
    for _ in range(10):
        fail(ejector, a, 4, 1.0)
        succeed(ejector, a, 1, 1.0)
    assert a.usable and a.breaker is None


@pytest.mark.parametrize("outcome", ["completed", "rejected", "excused", "refused", "abandoned", "retry"])
def test_what_is_no_fault_of_the_host_never_takes_it_out(outcome: Outcome) -> None:
    ejector, (a, _) = ejector_of(2)
    fail(ejector, a, 100, 1.0, outcome)
    assert a.usable and a.breaker is None


def test_a_host_that_broke_off_a_request_that_could_be_sent_again_failed_all_the_same() -> None:
    ejector, (a, _) = ejector_of(2)
    fail(ejector, a, 5, 1.0, "resent")
    assert not a.usable


def test_a_host_comes_back_through_trials_one_at_a_time() -> None:
    ejector, (a, _) = ejector_of(2)
    fail(ejector, a, 5, 0.0)
    ejector.advance(30.0)
    succeed(ejector, a, TRIALS - 1, 31.0)
    assert a.trial
    succeed(ejector, a, 1, 32.0)
    assert a.usable and not a.trial


def test_each_time_in_a_row_it_is_out_for_longer_up_to_ten_times() -> None:
    ejector, (a, _) = ejector_of(2)
    now = 0.0
    fail(ejector, a, 5, now)
    for n in range(1, MOST_TIMES + 3):
        length = 30.0 * min(n, MOST_TIMES)
        ejector.advance(now + length - 0.01)
        assert not a.usable
        now += length
        ejector.advance(now)
        assert a.usable and a.trial
        fail(ejector, a, 1, now)  # one failed trial is enough
        assert not a.usable


def test_a_host_that_stays_well_is_forgiven_step_by_step() -> None:
    ejector, (a, _) = ejector_of(2)
    fail(ejector, a, 5, 0.0)
    ejector.advance(30.0)
    fail(ejector, a, 1, 30.0)
    ejector.advance(90.0)
    succeed(ejector, a, TRIALS, 90.0)
    breaker = a.breaker
    assert breaker is not None and breaker.times == 2
    ejector.advance(119.0)
    assert breaker.times == 2
    ejector.advance(120.0)
    assert breaker.times == 1
    ejector.advance(150.0)
    assert a.breaker is None  # nothing left to remember, nothing to pay for


def test_a_full_host_is_not_broken_but_one_that_declines_everything_is_set_aside_shortly() -> None:
    ejector, (a, _) = ejector_of(2)
    for _ in range(10):
        fail(ejector, a, 9, 0.0, "busy")
        succeed(ejector, a, 1, 0.0)
    assert a.usable
    for n in range(3):
        fail(ejector, a, 10 if not n else 1, float(n), "busy")
        assert not a.usable
        ejector.advance(n + 1.0)  # 1 s, and no longer the next time
        assert a.trial


def test_never_more_than_half_and_never_the_last() -> None:
    for hosts, most in ((1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (9, 4)):
        ejector, members = ejector_of(hosts)
        for member in members:
            fail(ejector, member, 50, 0.0)
        assert sum(not m.usable for m in members) == most, hosts


@pytest.mark.parametrize(("share", "most"), [(0.0, 0), (0.01, 1), (0.3, 3), (1.0, 9)])
def test_the_share_is_the_operators(share: float, most: int) -> None:
    ejector, members = ejector_of(10, max_share=share)
    for member in members:
        fail(ejector, member, 50, 0.0)
    assert sum(not m.usable for m in members) == most


def test_where_probes_take_the_rest_out_ejected_hosts_serve_all_the_same() -> None:
    ejector, (a, b) = ejector_of(2)
    fail(ejector, a, 5, 0.0)
    assert not a.usable
    b.health.connect_failed("gone", 1.0)
    assert ejector.reviewed() == [a]
    assert a.usable and not a.trial
    b.health.passed(2.0)
    assert ejector.reviewed() == [a]
    assert not a.usable


def test_a_host_on_trial_is_not_held_back_where_it_is_all_there_is() -> None:
    ejector, (a, b) = ejector_of(2)
    fail(ejector, a, 5, 0.0)
    ejector.advance(30.0)
    b.draining = True
    ejector.reviewed()
    assert a.usable and not a.trial


def test_switched_off_it_ejects_nobody_and_lets_everybody_in() -> None:
    ejector, (a, b) = ejector_of(2)
    fail(ejector, a, 5, 0.0)
    ejector.configure(Ejection(enabled=False))
    assert a.usable and a.breaker is None
    fail(ejector, b, 50, 0.0)
    assert b.usable and b.breaker is None


def test_ejections_survive_a_restart_as_plain_values() -> None:
    ejector, (a, b, _) = ejector_of(3)
    fail(ejector, a, 5, 0.0)
    ejector.advance(30.0)
    fail(ejector, a, 1, 30.0)
    fail(ejector, b, 4, 30.0)
    saved = json.loads(json.dumps(ejector.to_state(50.0)))
    assert saved == [
        {
            "name": "h0",
            "address": "h0:1",
            "state": "open",
            "left_s": 40.0,
            "times": 2,
            "reason": "its trial request failed",
        }
    ]
    again, (c, d, _) = ejector_of(3)
    assert again.restore(saved, 1000.0) == [c]
    assert not c.usable and d.usable
    assert again.to_state(1000.0) == saved
    again.advance(1040.0)
    assert c.trial
    assert again.restore([{**saved[0], "name": "gone"}], 0.0) == []


@pytest.mark.parametrize(("left_s", "until"), [(-5.0, 0.0), (1e12, 60.0), (12.0, 12.0)])
def test_a_saved_time_that_makes_no_sense_is_bounded(left_s: float, until: float) -> None:
    ejector, (a, _) = ejector_of(2)
    ejector.restore(
        [{"name": "h0", "address": "h0:1", "state": "open", "left_s": left_s, "times": 2, "reason": ""}], 0.0
    )
    assert a.breaker is not None and a.breaker.until == until


steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "error",
                "busy",
                "resent",
                "rejected",
                "ok",
                "wait",
                "fall",
                "rise",
                "drain",
                "swap",
                "save",
                "rule",
            ]
        ),
        st.integers(0, 63),
    ),
    max_size=120,
)


@given(steps, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_whatever_happens_no_more_than_the_share_is_out_and_never_all(
    events: Sequence[tuple[str, int]], share: float
) -> None:
    everyone = members_of(6)
    ejector = Ejector(Ejection(max_share=share, consecutive_5xx=2))
    members = everyone
    ejector.replace(members)
    now = 0.0
    for what, n in events:
        member = everyone[n % 6]
        if what in ("error", "busy", "resent", "rejected"):
            for _ in range(1 + n // 6):
                ejector.failed(member, what, now)  # type: ignore[arg-type]
        elif what == "ok" and member.breaker is not None:
            ejector.succeeded(member, now)
        elif what == "wait":
            now += n
            ejector.advance(now)
        elif what == "fall":
            member.health.connect_failed("gone", now)
            ejector.reviewed()
        elif what == "rise":
            member.health.passed(now)
            ejector.reviewed()
        elif what == "drain":
            member.draining = not member.draining
            ejector.reviewed()
        elif what == "swap":
            members = [m for i, m in enumerate(everyone) if n >> i & 1]
            ejector.replace(members)
        elif what == "save":
            saved = ejector.to_state(now)
            assert all(0.0 <= s["left_s"] <= 30.0 * MOST_TIMES and s["times"] <= MOST_TIMES for s in saved)
            for old in members:
                old.breaker = None
            ejector.replace(members)
            ejector.restore(saved, now)
        elif what == "rule":
            ejector.configure(Ejection(max_share=share, consecutive_5xx=1 + n % 4, enabled=n > 7))
        out = [m for m in members if m.breaker is not None and m.breaker.state != "closed"]
        most = 0 if not share else min(len(members) - 1, max(1, int(share * len(members) + 1e-9)))
        assert len(out) <= max(0, most)
        serving = [m for m in members if m.health.healthy and not m.draining]
        assert not serving or any(m.usable for m in serving)
        # Held back to one request at a time only while somebody else serves without such a bound.
        assert not any(m.trial for m in serving) or any(m.usable and not m.trial for m in serving)
        for m in members:
            assert not (m.ejected or m.trial) or m in out
            if m.breaker is not None and m.breaker.state == "open":
                assert m.breaker.until - now <= 30.0 * MOST_TIMES


# Latency.


def windows(outliers: Outliers, latencies: dict[str, float], count: int, requests: int = LEAST) -> list[str]:
    """Who is found after `count` windows in which each host answered so."""
    found: list[str] = []
    start = 0.0 if outliers._since is None else outliers._since
    outliers.judge({}, 5.0, start)
    for n in range(1, count + 1):
        for _ in range(requests):
            outliers.learn(latencies.items())
        now = start + n * WINDOW_S
        assert outliers.judge(dict.fromkeys(latencies, "same"), 5.0, now - 0.1) == {}
        found += map(str, outliers.judge(dict.fromkeys(latencies, "same"), 5.0, now))
    return found


@pytest.mark.parametrize(
    ("latencies", "found"),
    [
        ({"a": 200.0, "b": 30.0, "c": 30.0}, ["a"]),
        ({"a": 200.0, "b": 30.0}, ["a"]),
        ({"a": 120.0, "b": 60.0, "c": 30.0}, []),  # 4 times slower: routing's business
        ({"a": 19.0, "b": 1.0, "c": 1.0}, []),  # nobody feels 18 ms
        ({"a": 900.0}, []),  # with whom should it be compared
    ],
)
def test_a_host_five_times_slower_than_the_median_host_is_an_outlier(
    latencies: dict[str, float], found: list[str]
) -> None:
    assert windows(Outliers(), latencies, PERSISTS - 1) == []
    assert windows(Outliers(), latencies, PERSISTS) == found
    assert windows(Outliers(), latencies, PERSISTS, LEAST - 1) == []


def test_a_few_long_requests_do_not_make_an_outlier() -> None:
    outliers = Outliers()
    outliers.judge({}, 5.0, 0.0)
    for window in range(1, 5):
        for i in range(40):
            outliers.learn([("a", 60_000.0 if i % 3 == 0 else 30.0), ("b", 30.0)])
        assert outliers.judge({"a": 1, "b": 1}, 5.0, window * WINDOW_S) == {}


def test_hosts_that_serve_other_models_are_not_compared() -> None:
    outliers = Outliers()
    outliers.judge({}, 5.0, 0.0)
    for window in range(1, 5):
        for _ in range(40):
            outliers.learn([("big", 900.0), ("small", 30.0)])
        assert outliers.judge({"big": "x", "small": "y"}, 5.0, window * WINDOW_S) == {}


def test_a_slow_host_is_ejected_as_a_failing_one_is() -> None:
    ejector, members = ejector_of(3)
    ejector.advance(0.0)
    for window in range(1, PERSISTS + 1):
        for _ in range(LEAST):
            ejector.learn(members, [300.0, 30.0, 30.0])
        ejector.advance(window * WINDOW_S)
    assert [m.usable for m in members] == [False, True, True]
    assert ejector.news() == ["host h0 is ejected for 30 s: it is 10.0 times slower than the others"]


# Probes.


def test_a_host_that_is_out_is_asked_again_soon_and_then_less_and_less_often() -> None:
    health = Health(HealthRule())
    assert health.pause_s(0.0, 1.0) == 0.1
    health.passed(5.0)
    assert health.pause_s(6.0, 1.0) == 1.0
    health.failed("slow", 7.0)
    assert health.healthy and health.pause_s(7.0, 1.0) == 0.1  # in doubt: asked again at once
    health.connect_failed("gone", 8.0)
    assert [health.pause_s(8.0 + t, 1.0) for t in (0.0, 0.3, 1.0, 2.0, 4.0, 400.0)] == [
        0.1,
        0.1,
        0.25,
        0.5,
        1.0,
        1.0,
    ]
    assert health.pause_s(8.0, 0.05) == 0.05
