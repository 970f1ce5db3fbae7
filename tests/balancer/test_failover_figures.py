"""The promises of the front door while hosts die, hang, break and drain: 3 hosts x 30 ms, 48 workers that POST.

Measured by bench/balancer/failover, which runs the same against HAProxy and nginx. What counts as in flight ("under
way") is told in its scenarios.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def measured(*scenarios: str) -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-m", "bench.balancer.failover", "--subjects", "fleetctl", "--json", "--short"]
    done = subprocess.run(
        [*command, "--scenarios", ",".join(scenarios)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["case"]: row for row in json.loads(done.stdout)}
    for row in rows.values():
        assert row["requests"] > 200, row
        assert row["twice"] == 0, row
    return rows


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    return measured("kill", "500", "all-down", "drain")


def test_kill_9_costs_no_more_than_what_was_in_flight_and_is_over_at_once(
    rows: dict[str, dict[str, Any]],
) -> None:
    row = rows["kill"]
    assert 0 < row["errors"] <= row["under_way"] < 48, row
    assert row["last_error_s"] <= 0.3, row


def test_a_host_that_answers_500_costs_25_errors_at_most(rows: dict[str, dict[str, Any]]) -> None:
    assert 5 <= rows["500"]["errors"] <= 25, rows["500"]


def test_when_all_hosts_die_for_a_second_the_rest_waits_and_is_served(
    rows: dict[str, dict[str, Any]],
) -> None:
    row = rows["all-down"]
    assert row["errors"] <= row["under_way"], row
    assert row["last_error_s"] <= 0.3, row
    assert row["first_good_s"] <= 1.0, row


def test_a_drained_host_gets_nothing_after_50_ms_and_nobody_fails(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["drain"]["errors"] == 0, rows["drain"]
    assert rows["drain"]["last_new_s"] <= 0.05, rows["drain"]


@pytest.mark.slow
def test_a_host_that_hangs_gets_nothing_new_after_4_seconds() -> None:
    row = measured("stop")["stop"]
    assert row["new_after_4s"] == 0, row
    assert row["errors"] == 0, row
