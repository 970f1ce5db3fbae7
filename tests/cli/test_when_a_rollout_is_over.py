"""The pure part of `up`, `scale` and `down`: when there is nothing left to wait for, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_controller.lifecycle import GOING_DOWN, STARTING_UP, HostState
from fleetctl.rollout import Falling, Ledger, Rising

INTERVAL_S = 10.0
NAMES = ("a", "b", "c")


@dataclass(frozen=True)
class Happened:
    kind: str
    host: str | None
    reason: str = ""
    data: dict[str, str] = field(default_factory=dict)


def picture(states: str, desired: int | None = 1, at: float = 0.0, goal: str = "up", **flags: list[str]):
    """`states` names one state for each of the hosts a, b, c."""
    given_states = dict(zip(NAMES, states.split(), strict=True))
    return {
        "at": at,
        "goal": goal,
        "pools": [{"name": "p", "desired": desired, "ready": list(given_states.values()).count("ready")}],
        "hosts": [
            {"name": n, "pool": "p", "state": s, "cordoned": n in flags.get("cordoned", [])}
            for n, s in given_states.items()
        ],
    }


def rising(servers: int | None = None) -> Rising:
    return Rising(Ledger(NAMES, 0.0, INTERVAL_S), ["p"], servers)


def over_after(rollout, states: str, **fields) -> float | None:
    """Seconds that a picture has to stay the same until it counts as final; None: longer than a minute."""
    for at in range(60):
        if rollout.settled(picture(states, at=float(at), **fields)):
            return float(at)
    return None


@pytest.mark.parametrize(
    ("states", "fields", "seconds"),
    [
        ("ready off off", {}, 0),
        ("ready starting off", {}, 0),
        ("ready failed off", {}, 0),
        ("off off off", {"desired": 0}, 0),
        ("starting off off", {}, None),
        ("off off off", {}, None),  # nothing failed: the controller has yet to begin
        ("failed off off", {}, 25),  # it may still take another host
        ("failed unreachable failed", {}, 15),
        ("failed off off", {"cordoned": ["b", "c"]}, 15),
        ("failed draining failed", {}, None),
        ("ready off off", {"desired": None}, None),
        ("ready off off", {"goal": "down"}, None),
    ],
)
def test_up_is_over_once_no_more_can_be_had(states, fields, seconds):
    assert over_after(rising(), states, **fields) == seconds


def test_a_picture_from_before_the_command_does_not_count():
    early = Rising(Ledger(NAMES, 100.0, INTERVAL_S), ["p"])
    assert not early.settled(picture("ready off off", at=99.9))
    assert early.settled(picture("ready off off", at=100.0))


@pytest.mark.parametrize(
    ("servers", "states", "desired", "seconds"),
    [
        (1, "ready off off", 1, 0),
        (1, "ready draining off", 1, None),
        (1, "ready ready off", 1, None),
        (2, "ready off off", 1, 15),  # the autoscaler set another number, and that is met
        (2, "ready starting off", 2, None),
    ],
)
def test_scale_is_over_when_the_number_is_met_exactly(servers, states, desired, seconds):
    assert over_after(rising(servers), states, desired=desired) == seconds


@given(
    st.lists(st.sampled_from(list(HostState)), min_size=3, max_size=3), st.integers(0, 3), st.integers(0, 59)
)
def test_up_never_ends_short_while_a_host_is_at_work(states, desired, at):
    shown = picture(" ".join(states), desired=desired, at=float(at))
    rollout = rising()
    rollout.settled(picture(" ".join(states), desired=desired, at=0.0))
    if rollout.settled(shown) and states.count(HostState.READY) < desired:
        assert not set(states) & (STARTING_UP | GOING_DOWN)


@pytest.mark.parametrize(
    ("events", "states", "late", "code"),
    [
        ([], "ready off off", False, 0),
        ([("a", "failed")], "failed ready off", False, 3),
        ([("a", "failed")], "ready off off", False, 3),  # failed, and came on the second try
        ([("a", "unreachable"), ("b", "unreachable")], "unreachable unreachable off", False, 4),
        ([("a", "unreachable"), ("b", "failed")], "unreachable failed off", False, 1),
        ([("a", "booting")], "booting off off", True, 1),
        ([("a", "booting")], "ready booting off", True, 3),
    ],
)
def test_how_up_ends(events, states, late, code):
    rollout = rising()
    for host, kind in events:
        rollout.ledger.hear(Happened(kind, host))
    rollout.ledger.hear(Happened("scale", None))
    assert rollout.exit_code(picture(states), late) == code


@pytest.mark.parametrize(
    ("states", "seconds", "code"),
    [
        ("off off off", 0, 0),
        ("off stopping off", None, 3),
        ("off unreachable off", 15, 3),
        ("unreachable unreachable unreachable", 15, 4),
        ("failed unreachable unreachable", 15, 1),
    ],
)
def test_how_down_ends(states, seconds, code):
    falling = Falling(Ledger(NAMES, 0.0, INTERVAL_S))
    for host, state in zip(NAMES, states.split(), strict=True):
        falling.ledger.hear(Happened(state, host))
    assert over_after(falling, states, goal="down") == seconds
    assert falling.exit_code(picture(states, goal="down")) == code
