"""What is written of a pool's decisions: each that differs, the figures once a minute, and no more than fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet_controller.explain.chronicle import Chronicle, inputs
from fleet_controller.journal import DecisionRecord, Journal, PoolRecord, history
from fleet_controller.policies import Bounds, Decision, Recommendation, Signal

T0 = 1_790_000_000.0


def told(
    desired: int = 2, p95: float = 210.0, blocked: tuple[str, ...] = (), wants: int = 2
) -> dict[str, object]:
    reason = f"p95 {p95:.0f} ms over 200 ms"
    decision = Decision(
        desired=desired,
        reason=reason,
        winner="latency",
        recommendations=(Recommendation(policy="latency", desired=wants, reason=reason),),
        blocked_by=blocked,
        bounds=Bounds(low=1, high=3),
    )
    return inputs(decision, Signal(ready=2, p95_ms=p95, rps=12.34567), {"last_up_at": T0, "highs": []}, ())


def test_what_a_row_holds() -> None:
    row = told()
    assert row["signal"] == {
        "ready": 2,
        "starting": 0,
        "p95_ms": 210.0,
        "rps": 12.35,
        "completed": 0,
        "errors": 0,
        "age_s": 0.0,
    }
    assert row["state"] == {"last_up_at": T0} and row["bounds"]["high"] == 3
    assert {"desired", "reason", "winner", "recommendations", "blocked_by", "diagnosis"} <= row.keys()


@pytest.mark.parametrize(
    "other",
    [
        told(desired=3),
        told(wants=3),
        told(blocked=("max_servers 3",)),
        told() | {"winner": "queue"},
        told() | {"bounds": {"low": 2, "high": 3}},
    ],
)
def test_another_decision_is_written_at_once(other: dict[str, object]) -> None:
    chronicle = Chronicle("one")
    assert chronicle.note(T0, told()) == DecisionRecord("one", T0, T0, told())
    assert chronicle.note(T0 + 5, other) == DecisionRecord("one", T0 + 5, T0 + 5, other)


def test_figures_that_move_are_written_once_a_minute() -> None:
    chronicle = Chronicle("one")
    rows = [
        chronicle.note(T0 + 5 * n, told(p95=200.0 + n, blocked=(f"cooldown scale_up: {n} s left",)))
        for n in range(61)
    ]
    assert [row.at for row in rows if row is not None] == [
        T0,
        T0 + 60,
        T0 + 120,
        T0 + 180,
        T0 + 240,
        T0 + 300,
    ]


def test_nothing_new_makes_no_row_but_says_that_it_still_holds() -> None:
    chronicle = Chronicle("one")
    rows = [chronicle.note(T0 + 5 * n, told()) for n in range(25)]
    assert [(row.at, row.until) for row in rows if row is not None] == [
        (T0, T0),
        (T0, T0 + 60),
        (T0, T0 + 120),
    ]


def test_a_clock_that_was_set_back_begins_a_new_row() -> None:
    chronicle = Chronicle("one")
    chronicle.note(T0, told())
    assert chronicle.note(T0 - 3600, told()) is not None


def test_the_decision_in_force_then_and_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "DECISIONS_KEPT", 20)
    journal = Journal.open(f"sqlite:///{tmp_path / 'state.db'}")
    for number in range(30):
        at = T0 + 100 * number
        record = DecisionRecord("one", at, at, told(desired=number))
        journal.save_pool(PoolRecord("one", number), record)
        journal.save_pool(PoolRecord("one", number), DecisionRecord("one", at, at + 60, record.told))
    journal.save_pool(PoolRecord("two", 1), DecisionRecord("two", T0, T0, told()))
    found = journal.decisions("one", T0 + 2650)
    assert [(row.told["desired"], row.at, row.until) for row in found] == [
        (26, T0 + 2600, T0 + 2660),
        (25, T0 + 2500, T0 + 2560),
    ]
    assert journal.decisions("one", T0 - 1) == []
    assert len(journal.decisions("one", T0 + 1e6, limit=100)) == 20  # so many of a pool, no more
    journal.save_pool(PoolRecord("one", 1), DecisionRecord("one", T0 + 15 * 86400, T0 + 15 * 86400, told()))
    assert len(journal.decisions("one", T0 + 1e8, limit=100)) == 1  # and none older than 14 days
    assert len(journal.decisions("two", T0 + 1e8)) == 1
    journal.close()
