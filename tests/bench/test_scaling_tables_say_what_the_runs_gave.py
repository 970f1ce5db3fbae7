"""The scaling bench's own arithmetic: means over cells, the cheapest peer, and shares at equal host-hours."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("numpy")
sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.scaling.field import Outcome
from bench.scaling.kept import Kept
from bench.scaling.table import ASIDE, at_equal_hours, cheapest, rows, standings, text


def outcome(subject: str, setting: str, trace: str, within: float, hours: float, flaps: int = 0) -> Outcome:
    return Outcome(trace, 60.0, subject, setting, within, hours, flaps, 9)


RUNS = [
    outcome("fleetctl", "defaults", "a", 0.998, 12.0, 4),
    outcome("fleetctl", "defaults", "b", 0.994, 30.0),
    outcome("HPA requests", "0.5", "a", 0.999, 20.0, 2),
    outcome("HPA requests", "0.5", "b", 0.993, 40.0),
    outcome("dstack", "0.5", "a", 0.999, 30.0),
    outcome("dstack", "0.5", "b", 0.997, 60.0),
    outcome("SkyServe", "0.5", "a", 0.9, 10.0),
    outcome("SkyServe", "0.5", "b", 0.9, 20.0),
    outcome("fleetctl", "defaults", ASIDE, 0.9, 3.0),
    outcome("HPA requests", "0.5", ASIDE, 0.92, 4.0),
    outcome("HPA requests", "0.7", ASIDE, 0.86, 2.0),
    outcome("static peak", "1.0", ASIDE, 1.0, 7.0),
]
ORACLE = {("a", 60.0): 10.0, ("b", 60.0): 20.0, (ASIDE, 60.0): 2.0}


def test_a_policy_stands_by_the_mean_of_its_cells_and_the_trace_aside_is_not_one() -> None:
    own = standings(RUNS, ORACLE)[0]
    assert own.subject == "fleetctl"
    assert own.mean == pytest.approx(0.996)  # (0.998 + 0.994) / 2
    assert own.worst.trace == "b"
    assert own.cost == pytest.approx(1.35)  # (12 / 10 + 30 / 20) / 2
    assert own.flaps == 2.0


def test_the_cheapest_peer_is_one_that_keeps_the_share() -> None:
    best = cheapest(standings(RUNS, ORACLE))
    assert best is not None
    assert (
        best.name == "HPA requests (0.5)"
    )  # 99.6 % at 2.0; dstack keeps it at 3.0, SkyServe is cheaper and doesn't
    assert best.cost == pytest.approx(2.0)
    assert cheapest(standings(RUNS, ORACLE), 0.9999) is None


def test_at_equal_hours_a_peer_lies_between_its_settings() -> None:
    runs = [run for run in RUNS if run.trace == ASIDE and run.subject == "HPA requests"]
    assert at_equal_hours(runs, 3.0)[0].within == pytest.approx(0.89)  # half way from 0.86 to 0.92
    assert at_equal_hours(runs, 9.0)[0].within == 0.92
    assert at_equal_hours(runs, 1.0) == []  # no setting is that cheap
    worse = [*runs, outcome("HPA requests", "0.6", ASIDE, 0.7, 3.0)]
    assert at_equal_hours(worse, 3.0)[0].within == pytest.approx(
        0.89
    )  # a setting that a cheaper one betters is none


def test_the_tables_name_what_matters() -> None:
    said = text(RUNS, ORACLE)
    assert "HPA requests (0.5) with 99.60% at 2.00 x the oracle; fleetctl 99.60% at 1.35 x" in said
    assert "no worse than the best reactive peer at these hours: HPA requests 89.00%" in said  # ours: 90 %
    assert "fleetctl 2.0; HPA requests (0.5) 1.0" in said


def test_a_row_has_fleetctls_figure_and_its_ratio_to_the_peers() -> None:
    found = rows(RUNS, ORACLE)
    assert all(set(row) == {"case", "subject", "metric", "value", "unit", "peer", "ratio"} for row in found)
    assert all(row["subject"] == "fleetctl" for row in found)
    hours = next(
        r for r in found if r["case"] == "a-start60s" and r["metric"] == "gpu_hours" and r["peer"] == "oracle"
    )
    assert (hours["value"], hours["ratio"]) == (12.0, 1.2)


def test_a_kept_run_is_one_with_the_same_trace_setting_and_sources(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept.json")
    key = kept.key(b"0,1\n", {"smoothing_s": 5}, None, "a", 60.0, "dstack", "0.5")
    assert kept.key(b"0,2\n", {"smoothing_s": 5}, None, "a", 60.0, "dstack", "0.5") != key
    assert kept.key(b"0,1\n", {"smoothing_s": 6}, None, "a", 60.0, "dstack", "0.5") != key
    assert kept.key(b"0,1\n", {"smoothing_s": 5}, None, "a", 60.0, "dstack", "0.7") != key
    kept.put(key, RUNS[4])
    kept.write()
    assert Kept(tmp_path / "kept.json").get(key) == RUNS[4]
    (tmp_path / "kept.json").write_text("{")
    assert Kept(tmp_path / "kept.json").get(key) is None
    (tmp_path / "kept.json").write_text(json.dumps({key: {"trace": "a"}}))
    assert Kept(tmp_path / "kept.json").get(key) is None
