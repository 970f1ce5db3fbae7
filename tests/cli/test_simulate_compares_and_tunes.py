"""`fleetctl simulate --compare`, `--tune`, `--plot`, `--history`, and the fleet's own recorded traffic."""

from __future__ import annotations

import sys
import time

import pytest

from fleet_controller.journal import Journal, Mark, Minute
from fleet_controller.spec import load, load_scaling
from fleet_controller.statefolder import StateFolder
from fleetctl import tuning

SCALING = """\
# ours
scaling:
  min_servers: 2   # two
  max_servers: 6
  target_utilization: 0.4
  latency: {target_ms: 2000}   # the promise
  predictive: {enabled: false}
  cooldown: {scale_down: 60s}
  stabilization: {scale_down: 60s}
"""
CURVE = ("--service-curve", "base=100ms,per_request=100ms,max_batch=8", "--startup", "20s")


@pytest.fixture
def traffic(folder):
    """Eight minutes, three requests a second at most."""
    rows = "".join(f"{10 * i},{10 + 20 * (i % 20 > 14)}\n" for i in range(48))
    (folder / "t.csv").write_text("timestamp_s,requests\n" + rows)
    (folder / "ours.yaml").write_text(SCALING)
    (folder / "one.yaml").write_text("scaling: {max_servers: 1}\n")
    fleet = (folder / "fleet.yaml").read_text()
    (folder / "fleet.yaml").write_text(fleet.replace("interval: 200ms", "interval: 10s"))
    return "--trace", "t.csv", *CURVE


def test_each_file_meets_the_same_arrivals(fleetctl, traffic):
    told = fleetctl("simulate", "--compare", "ours.yaml", "one.yaml", *traffic, "-o", "json").json
    assert told["schema"] == "fleetctl/simulation-comparison/v1"
    assert [run["policy_file"] for run in told["runs"]] == ["ours.yaml", "one.yaml"]
    assert len({run["requests"] for run in told["runs"]}) == 1
    ours, one = told["runs"]
    assert one["server_hours"] < ours["server_hours"]
    alone = fleetctl("simulate", "--policy-file", "one.yaml", *traffic, "-o", "json").json
    assert alone["mean_wait_ms"] == one["mean_wait_ms"]
    table = fleetctl("simulate", "--compare", "ours.yaml", *traffic).out  # one file: beside the fleet's own
    assert "fleet.yaml" in table and "ours.yaml" in table and "the same arrivals for each" in table


def test_tuning_prints_a_diff_and_writes_only_when_told(fleetctl, folder, traffic, monkeypatch):
    monkeypatch.setattr(tuning, "MOST_RUNS", 12)
    told = fleetctl("simulate", "--tune", "--policy-file", "ours.yaml", *traffic, "-o", "json").json
    assert told["schema"] == "fleetctl/simulation-tuning/v1"
    assert told["best"]["judged"]["server_hours"] < told["before"]["judged"]["server_hours"]
    assert told["best"]["judged"]["within_target"] >= 0.995
    assert told["diff"].startswith("--- ours.yaml\n+++ ours.yaml (tuned)\n")
    assert not told["written"] and (folder / "ours.yaml").read_text() == SCALING
    ran = fleetctl("simulate", "--tune", "--write", "--policy-file", "ours.yaml", *traffic)
    assert ran.code == 0 and "written to ours.yaml" in ran.out
    new = (folder / "ours.yaml").read_text()
    assert new != SCALING
    for comment in ("# ours", "# two", "# the promise"):
        assert comment in new
    assert load_scaling(folder / "ours.yaml", "default").min_servers == told["best"]["changes"]["min_servers"]


def test_a_promise_that_nothing_holds_is_exit_1(fleetctl, folder, traffic, monkeypatch):
    monkeypatch.setattr(tuning, "MOST_RUNS", 3)
    ran = fleetctl("simulate", "--tune", "--policy-file", "ours.yaml", *traffic, "--target-ms", "1")
    assert ran.code == 1
    assert "no setting that was tried holds 99.50%" in ran.out
    assert (folder / "ours.yaml").read_text() == SCALING


def test_prices_make_a_cost_and_the_oracle_is_cheaper(fleetctl, folder, traffic):
    fleet = (folder / "fleet.yaml").read_text()
    told = fleetctl("simulate", "--policy-file", "ours.yaml", *traffic, "-o", "json").json
    assert (told["cost"], told["static_cost"]) == (None, None)  # gpu-b has no price
    (folder / "fleet.yaml").write_text(
        fleet.replace("address: local}", "address: local, price_per_hour: 1.0}")
    )
    told = fleetctl("simulate", "--policy-file", "ours.yaml", *traffic, "-o", "json").json
    assert told["server_hours"] <= told["cost"] <= 2.10 * told["server_hours"]
    assert told["oracle"]["server_hours"] <= told["server_hours"]
    assert told["oracle"]["within_target"] >= told["oracle"]["share"] == 0.995
    table = fleetctl("simulate", "--policy-file", "ours.yaml", *traffic).out
    assert "oracle" in table and "cost" in table
    assert (
        fleetctl("simulate", "--policy-file", "ours.yaml", *traffic, "--no-oracle", "-o", "json").json[
            "oracle"
        ]
        is None
    )


def test_a_picture(fleetctl, folder, traffic):
    pytest.importorskip("matplotlib")
    ran = fleetctl("simulate", *traffic, "--plot", "out.png")
    assert ran.code == 0 and "drawn into out.png" in ran.err
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_it_says_what_to_install(fleetctl, folder, traffic, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    ran = fleetctl("simulate", *traffic, "--plot", "out.png")
    assert (ran.code, ran.out) == (2, "")
    assert "pip install 'fleetctl[plot]'" in ran.err


def test_the_fleets_own_traffic_is_taken_where_no_trace_is_given(fleetctl, folder, traffic):
    ran = fleetctl("simulate", *CURVE)
    assert (ran.code, ran.out) == (2, "")
    assert "no --trace, and of pool default no requests are recorded" in ran.err
    now = int(time.time()) // 60 * 60
    state = StateFolder.of(load(folder / "fleet.yaml"))
    state.ensure()
    journal = Journal.open(state.journal_url)
    minutes = [Minute(now - 60 * n, 30 + n) for n in range(90, 1, -1)]
    journal.keep_traffic("default", minutes, Mark(now, "1@0", 0))
    journal.close()
    told = fleetctl("simulate", *CURVE, "--since", "30m", "-o", "json").json
    assert told["trace"]["interval_s"] == 60
    assert 28 * 60 <= told["trace"]["seconds"] <= 30 * 60
    exported = fleetctl("traffic", "export").out
    (folder / "own.csv").write_text(exported)
    whole = fleetctl("simulate", *CURVE, "--trace", "own.csv", "-o", "json").json
    assert whole["requests"] == sum(minute.requests for minute in minutes)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("ours.yaml",), "is given without an option"),
        (("--compare",), "--compare needs the files"),
        (("--compare", "ours.yaml", "--tune"), "different things"),
        (("--compare", "nope.yaml"), "nope.yaml: no such file"),
        (("--write",), "--write writes what --tune finds"),
        (("--tune",), "there is none; set scaling.latency.target_ms"),
        (("--plot", "x.jpg"), "must end in .png"),
        (("--plot", "no/x.png"), "there is no folder"),
        (("--share", "99"), "did you mean 99%?"),
        (("--oracle",), "--oracle holds a latency target, and there is none"),
        (("--history", "moments.csv"), "--history needs counts per interval"),
        (("--history", "late.csv"), "--history is what came before it"),
    ],
)
def test_options_that_say_nothing_together_are_one_message(fleetctl, folder, traffic, options, says):
    (folder / "moments.csv").write_text("timestamp_s\n1\n2\n")
    (folder / "late.csv").write_text("timestamp_s,requests\n1700000000,1\n1700003600,1\n")
    (folder / "dated.csv").write_text("timestamp_s,requests\n1700000000,1\n1700000060,1\n")
    trace = ("--trace", "dated.csv") if "late.csv" in options else traffic
    ran = fleetctl("simulate", *trace, *options)
    assert (ran.code, ran.out) == (2, "")
    assert says in " ".join(ran.err.split())
