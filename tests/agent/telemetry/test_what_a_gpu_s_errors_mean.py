"""Whether a GPU can be trusted follows from its readings and from what the driver told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_agent.device.health import CONTAINED_WITHIN_S, DeviceHealth
from fleet_agent.device.reading import Process, Reading, printable, shares
from fleet_agent.device.xid import CATALOG

FINE = Reading(at=0.0, used=10, total=80, uncorrected=0, remap_pending=False, remap_failed=False, recovery=0)


def healthy() -> DeviceHealth:
    health = DeviceHealth("cuda:0")
    health.read(FINE)
    return health


@pytest.mark.parametrize("xid", [46, 48, 62, 64, 74, 79, 95, 110, 119, 120, 140, 143])
def test_an_xid_of_the_hardware_ends_the_device_and_says_what_to_do(xid: int) -> None:
    health = healthy()
    health.heard(xid, 1.0)
    verdict = health.verdict(1.0)
    assert verdict.state == "failed"
    assert verdict.reason is not None
    assert verdict.reason.startswith(f"device cuda:0: Xid {xid} (")
    assert any(word in verdict.reason for word in ("reset", "switch the host off"))


@pytest.mark.parametrize("xid", [8, 11, 13, 31, 32, 43, 45, 68, 69, 109])
def test_an_xid_of_an_application_changes_nothing(xid: int) -> None:
    health = healthy()
    for second in range(100):
        health.heard(xid, float(second) / 100)
    assert health.verdict(1.0).state == "healthy"
    assert health.xid_counts == {xid: 100}
    assert len(health.xids) == 16


@pytest.mark.parametrize("xid", [63, 92, 999])
def test_an_xid_that_can_wait_is_shown_and_serves_on(xid: int) -> None:
    health = healthy()
    health.heard(xid, 1.0)
    verdict = health.verdict(1.0)
    assert verdict.state == "degraded"
    assert f"Xid {xid}" in str(verdict.reason)


def test_contained_ecc_errors_are_borne_twice_a_day() -> None:
    health = healthy()
    health.heard(94, 0.0)
    health.heard(94, 10.0)
    health.heard(94, CONTAINED_WITHIN_S + 5.0)  # the first one is forgotten
    health.read(replace(FINE, at=CONTAINED_WITHIN_S + 5.0))
    assert health.verdict(CONTAINED_WITHIN_S + 5.0).state == "degraded"
    health.heard(94, CONTAINED_WITHIN_S + 6.0)
    assert health.verdict(CONTAINED_WITHIN_S + 6.0).state == "failed"


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({}, "healthy"),
        ({"remap_pending": True}, "degraded"),
        ({"remap_failed": True}, "failed"),
        ({"recovery": 1}, "failed"),
        ({"recovery": 2}, "failed"),
        ({"recovery": 4}, "degraded"),
        ({"throttle_bits": 0x01}, "healthy"),  # idle
        ({"throttle_bits": 0x04}, "healthy"),  # at its power limit, as it should be
        ({"throttle_bits": 0x40}, "degraded"),  # too hot
        ({"uncorrected": None, "recovery": None, "remap_failed": None}, "healthy"),
    ],
)
def test_what_a_reading_says(change: dict[str, object], state: str) -> None:
    health = healthy()
    health.read(replace(FINE, at=1.0, **change))  # type: ignore[arg-type]
    assert health.verdict(1.0).state == state


def test_errors_from_before_the_start_are_not_held_against_it() -> None:
    health = DeviceHealth("cuda:0")
    for second in range(3):
        health.read(replace(FINE, at=float(second), uncorrected=7))
    assert health.verdict(2.0).state == "healthy"


def test_more_uncorrectable_errors_end_the_device() -> None:
    health = healthy()
    health.read(replace(FINE, at=1.0, uncorrected=2))
    assert health.verdict(1.0).state == "healthy"  # the event that explains them may be on its way
    health.read(replace(FINE, at=2.0, uncorrected=2))
    assert health.verdict(2.0).state == "failed"
    assert "2 uncorrectable ECC errors" in str(health.verdict(2.0).reason)


def test_a_contained_error_explains_its_own_rise() -> None:
    health = healthy()
    health.read(replace(FINE, at=1.0, uncorrected=1))
    health.heard(94, 1.1)
    health.read(replace(FINE, at=2.0, uncorrected=1))
    health.read(replace(FINE, at=3.0, uncorrected=1))
    assert health.verdict(3.0).state == "degraded"


def test_nothing_read_is_unknown_and_never_healthy() -> None:
    health = DeviceHealth("cuda:0")
    assert health.verdict(0.0).state == "unknown"
    health.read(FINE)
    assert health.verdict(4.9).state == "healthy"
    assert health.reading(4.9) is FINE
    verdict = health.verdict(60.0)
    assert verdict.state == "unknown"
    assert "nothing read for 60 s" in str(verdict.reason)
    assert health.reading(60.0) is None


def test_failed_stays_failed() -> None:
    health = healthy()
    health.lost("the GPU is lost")
    health.read(replace(FINE, at=1.0))
    assert health.verdict(1.0).reason == "device cuda:0: the GPU is lost"


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0, 1e6)), max_size=40))
def test_only_what_the_catalogue_calls_failed_ends_a_device(told: list[tuple[int, float]]) -> None:
    health = healthy()
    told.sort(key=lambda event: event[1])
    for xid, at in told:
        health.heard(xid, at)
    contained = [at for xid, at in told if xid == 94]
    often = any(b - a < CONTAINED_WITHIN_S for a, b in zip(contained, contained[2:], strict=False))
    fatal = any(xid in CATALOG and CATALOG[xid].severity == "failed" for xid, _ in told)
    assert (health.verdict(0.0).state == "failed") == (fatal or often)


OURS = Process(1, "python3", 30)


@pytest.mark.parametrize(
    ("processes", "workers", "foreign", "names"),
    [
        ((OURS, Process(9, "miner", 12)), 30, 12, ["miner"]),
        ((OURS,), 30, 0, []),
        ((OURS, Process(9, "x", None)), 30, None, ["x"]),
        ((Process(1, "python3", None),), 21, 0, []),
        ((Process(9, "python3", 30),), 21, None, []),  # a container: our own under a number that isn't ours
        ((), 21, None, []),
        (None, 21, None, []),
    ],
)
def test_whose_memory_it_is(
    processes: tuple[Process, ...] | None, workers: int, foreign: int | None, names: list[str]
) -> None:
    whose = shares(replace(FINE, processes=processes), {1}, reserved_by_torch=21)
    assert (whose.workers, whose.foreign) == (workers, foreign)
    assert [stranger.name for stranger in whose.strangers] == names


def test_a_process_name_can_not_draw_on_the_terminal() -> None:
    assert printable("evil\x1b[2J\r\n") == "evil?[2J??"
    assert len(printable("x" * 5000)) == 60
