"""`fleetctl simulate`: a scaling block against recorded traffic, with no fleet running."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCALING = """\
scaling:
  min_servers: 1
  max_servers: 6
  target_utilization: 0.6
  latency: {target_ms: 500}
  cooldown: {scale_down: 60s}
  stabilization: {scale_down: 60s}
"""
CURVE = "base=20ms,per_request=20ms,max_batch=16"  # some 47 requests/s a host


@pytest.fixture
def surge(folder):
    """Quiet, five minutes of more than one host can do, quiet again."""
    rates = [10] * 12 + [70] * 30 + [5] * 48
    rows = "".join(f"{10 * i},{10 * rate}\n" for i, rate in enumerate(rates))
    (folder / "surge.csv").write_text("timestamp_s,requests\n" + rows)
    (folder / "policy.yaml").write_text(SCALING)
    fleet = (folder / "fleet.yaml").read_text()
    (folder / "fleet.yaml").write_text(fleet.replace("interval: 200ms", "interval: 5s"))
    return (
        "--trace",
        "surge.csv",
        "--policy-file",
        "policy.yaml",
        "--service-curve",
        CURVE,
        "--startup",
        "30s",
    )


def test_a_surge_is_answered_with_hosts_that_are_given_back(fleetctl, folder, surge):
    ran = fleetctl("simulate", *surge, "-o", "json")
    assert (ran.code, ran.err) == (0, "")
    told = ran.json
    assert told["schema"] == "fleetctl/simulation/v1"
    assert told["trace"] == {"file": "surge.csv", "requests": 24_600, "seconds": 900.0, "interval_s": 10.0}
    assert told["requests"] == told["completed"] == 24_600
    assert 3 <= told["peak_servers"] <= 6
    assert told["turns"][-1]["servers"] == 1
    assert told["scale_ups"] >= 1 <= told["scale_downs"]
    assert told["direction_changes"] <= 3
    assert told["target_ms"] == 500
    assert 0.8 < told["within_target"] < 1
    assert 900 <= told["seconds"] < 901
    assert told["static_server_hours"] == told["peak_servers"] * told["seconds"] / 3600
    assert told["server_hours"] < told["static_server_hours"]
    assert set(told["latency_ms"]) == {"p50", "p95", "p99"}
    assert not (folder / ".fleetctl").exists()


def test_table_and_yaml(fleetctl, surge):
    table = fleetctl("simulate", *surge).out
    assert "policy.yaml scales it, on surge.csv: 24,600 requests in 15m" in table
    assert "n requests take 20ms + n x 20ms, in batches of at most 16 (47.1 requests/s a host)" in table
    for figure in ("latency p95", "within 500 ms", "24,600 of 24,600", "server-hours", "direction changes"):
        assert figure in table
    assert "schema: fleetctl/simulation/v1" in fleetctl("simulate", *surge, "-o", "yaml").out


def test_the_same_seed_gives_the_same_figures_and_another_one_others(fleetctl, surge):
    one, two, other = (fleetctl("simulate", *surge, "-o", "json", "--seed", s).json for s in ("7", "7", "8"))
    assert one == two
    assert one["mean_wait_ms"] != other["mean_wait_ms"]


def test_fewer_hosts_a_longer_start_and_a_slower_curve_each_cost_latency(fleetctl, surge):
    def within(*more):
        return fleetctl("simulate", *surge, "-o", "json", *more).json["within_target"]

    usual = within()
    one = within("--hosts", "1")
    assert one < usual
    assert within("--startup", "3m") < usual
    assert within("--hosts", "1", "--service-curve", "base=20ms,per_request=40ms,max_batch=16") < one
    assert within("--target-ms", "60") < usual


def test_the_target_of_the_command_line_counts_and_does_not_steer(fleetctl, surge):
    own, given = (fleetctl("simulate", *surge, "-o", "json", *m).json for m in ((), ("--target-ms", "1")))
    assert given["turns"] == own["turns"]
    assert (given["target_ms"], given["within_target"]) == (1.0, 0.0)


def test_without_a_policy_file_it_is_the_pool_of_fleet_yaml(fleetctl, folder):
    (folder / "one.csv").write_text("timestamp_s\n100\n100.5\n101\n")
    told = fleetctl("simulate", "--trace", "one.csv", "-o", "json").json
    assert told["policy_file"] == str(folder / "fleet.yaml")
    assert told["assumed"]["hosts"] == 3
    assert told["assumed"]["interval_s"] == 0.2  # controller.interval
    assert told["assumed"]["service_curve"]["max_batch"] == 32  # the model's
    assert (told["requests"], told["seconds"], told["trace"]["interval_s"]) == (3, 1.022, None)
    assert (told["target_ms"], told["within_target"]) == (None, None)
    assert "--target-ms sets one" in fleetctl("simulate", "--trace", "one.csv").out


def test_a_policy_file_may_be_a_fleet_yaml(fleetctl, folder, surge):
    text = (folder / "fleet.yaml").read_text()
    (folder / "other.yaml").write_text(
        text.replace("min_servers: 1", "min_servers: 2").replace("default", "x")
    )
    told = fleetctl("simulate", "--trace", "surge.csv", "--policy-file", "other.yaml", "-o", "json").json
    assert told["peak_servers"] == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SCALING.replace("0.6", "60"), "policy.yaml:4:23: scaling.target_utilization: 60 is not a share"),
        (
            SCALING.replace("min_servers: 1", "min_servers: 9"),
            "policy.yaml:2:16: scaling.min_servers: 9 is more",
        ),
        ("min_servers: 1\n", 'policy.yaml:1:1: needs "scaling:" at the top'),
        ("- 1\n", 'needs "scaling:" at the top'),
    ],
)
def test_a_bad_policy_file_says_where(fleetctl, folder, surge, text, says):
    (folder / "policy.yaml").write_text(text)
    ran = fleetctl("simulate", *surge)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "bad.csv: the trace is empty"),
        ("time,count\n1,2\n", 'bad.csv:1: the header is "time,count"'),
        ("timestamp_s,requests\n0,5\n10,x\n", 'bad.csv:3: "10,x" is not'),
        ("timestamp_s,requests\n0,5\n10,1.5\n", 'bad.csv:3: "10,1.5" is not'),
        ("timestamp_s,requests\n10,5\n20,5\n0,4\n", "bad.csv:4: time 0 goes back"),
        ("timestamp_s,requests\n0,5\n10,5\n10,4\n", "bad.csv:4: the same time"),
        ("timestamp_s,requests\n0,5\n10,5\n15,4\n", "bad.csv:4: starts 5 s after the row before"),
        ("timestamp_s,requests\n0,5\n", "bad.csv: the trace needs two rows"),
        ("timestamp_s\n", "bad.csv: the trace has no arrivals"),
        (None, "bad.csv: can't be read: No such file"),
        (b"\xff\xfe\x00", "bad.csv: is not UTF-8"),
    ],
)
def test_a_bad_trace_is_one_message_with_file_and_line(fleetctl, folder, text, says):
    if text is not None:
        (folder / "bad.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    ran = fleetctl("simulate", "--trace", "bad.csv")
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert says in ran.err


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--service-curve", "base=20", None),  # a bare number counts seconds, as everywhere
        ("--service-curve", "base=20x", "is not a duration"),
        ("--service-curve", "speed=9", "known are base, per_request, max_batch and jitter"),
        ("--service-curve", "max_batch=0", "is not a number of requests"),
        ("--service-curve", "base=1ms,base=2ms", "is given twice"),
        ("--service-curve", "base=0s,per_request=0s", "takes no time at all"),
        ("--startup", "-1s", "is not a duration"),
        ("--target-ms", "nan", "is not a number of milliseconds above 0"),
        ("--start", "2026-03-02T08:00", "a time with its offset from UTC"),
        ("--hosts", "0", "--hosts"),
        ("--pool", "nope", 'no pool "nope"'),
    ],
)
def test_a_bad_option_is_exit_2_and_says_what_to_write(fleetctl, folder, option, value, says):
    (folder / "one.csv").write_text("timestamp_s\n0\n1\n")
    ran = fleetctl("simulate", "--trace", "one.csv", option, value)
    assert ran.code == (0 if says is None else 2)
    assert says is None or says in " ".join(ran.err.replace("│", " ").split())


def test_fewer_hosts_than_the_policy_asks_for_are_refused(fleetctl, folder, surge):
    (folder / "policy.yaml").write_text(SCALING.replace("min_servers: 1", "min_servers: 4"))
    ran = fleetctl("simulate", *surge, "--hosts", "3")
    assert ran.code == 2
    assert "--hosts 3 is less than scaling.min_servers in policy.yaml, which is 4" in ran.err


def test_schedules_need_to_know_the_day(fleetctl, folder, surge):
    schedule = "  schedules: [{cron: '0 8 * * *', timezone: Europe/Berlin, servers: 5, duration: 5m}]\n"
    (folder / "policy.yaml").write_text(SCALING + schedule)
    ran = fleetctl("simulate", *surge)
    assert ran.code == 2
    assert "--start 2026-03-02T08:00+01:00" in ran.err
    told = fleetctl("simulate", *surge, "-o", "json", "--start", "2026-03-02T07:50+01:00").json
    assert {"at": 600.0, "servers": 5}.items() <= next(t for t in told["turns"] if t["at"] >= 600).items()
    # the same from the trace's own timestamps
    header, *rows = (folder / "surge.csv").read_text().splitlines()
    moved = [f"{int(row.split(',')[0]) + 1772434200},{row.split(',')[1]}" for row in rows]
    (folder / "surge.csv").write_text("\n".join([header, *moved]) + "\n")
    assert fleetctl("simulate", *surge, "-o", "json").json["turns"] == told["turns"]


def test_what_is_not_simulated_is_said(fleetctl, folder, surge):
    text = (folder / "fleet.yaml").read_text()
    text = text.replace('"model:Hello"}', '"model:Hello", batching: {max_queue_delay_ms: 5}}')
    (folder / "fleet.yaml").write_text(
        text.replace("models: [hello]", "models: [hello]\n    routing: round_robin")
    )
    ran = fleetctl("simulate", *surge, "-o", "json", "--hosts", "1")
    assert ran.code == 0
    assert ran.json["schema"]
    assert "by least_connections, not by round_robin" in ran.err
    assert "max_queue_delay_ms of hello is left out" in ran.err
    assert "(balancer.queue.timeout), here they are late" in ran.err


def test_several_pools_need_a_name(fleetctl, folder, surge):
    text = (folder / "fleet.yaml").read_text().replace('hosts: ["gpu-*"]', "hosts: [gpu-a, gpu-b, gpu-c]")
    more = "  - {name: batch, hosts: [gpu-d], models: [hello]}\nbalancer:"
    text = text.replace(
        "models:\n  - {name: hello", "  - {name: gpu-d, address: local}\nmodels:\n  - {name: hello"
    )
    (folder / "fleet.yaml").write_text(text.replace("balancer:", more))
    ran = fleetctl("simulate", *surge)
    assert ran.code == 2
    assert "say which one: --pool default, --pool batch" in ran.err
    assert fleetctl("simulate", *surge, "--pool", "batch", "-o", "json").json["pool"] == "batch"


def test_other_commands_do_not_pay_for_it(folder):
    code = (
        "import sys\nfrom fleetctl.__main__ import main\n"
        "try: main(['validate'])\nexcept SystemExit as end: assert not end.code\n"
        "print([m for m in sys.modules if 'simulat' in m or m == 'fleet_controller.policies'])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
