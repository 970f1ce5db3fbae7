"""What `up`, `down` and `plan` hand to the controller, and what they refuse before anything is begun."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from fleet_controller import spec
from fleetctl.fleet import Fleet, drop_left_requests


def operation(stage, **fields):
    """The operation that was asked for last, as a controller would show it."""
    _, arguments = stage.asked[-1]
    bounds = arguments["bounds"]
    told = {
        "id": bounds["id"], "kind": "up", "by": bounds["by"], "since": 0.0, "hosts": bounds.get("hosts"),
        "planned": bounds.get("planned"), "parallel": bounds.get("parallel"), "most_failures": None,
        "failed": {}, "left": [], "outcome": None, "ended_at": None,
    }  # fmt: skip
    return told | fields


@pytest.fixture
def shown(stage):
    """The stage's picture with what the test says of the operation in it."""
    picture, said = stage.picture, {}
    stage.picture = lambda at=None: (
        picture(at) | {"operation": operation(stage, **said) if stage.asked else None}
    )
    return said


def test_bounds_travel_with_the_request(fleetctl, stage, shown):
    stage.goes_up("gpu-a", then=lambda: shown.update(outcome="done"))
    ran = fleetctl("up", "--limit", "gpu-a,gpu-c", "--parallel", "2", "--max-fail", "10%")
    assert ran.code == 0, ran.err
    [(kind, arguments)] = stage.asked
    assert kind == "up"
    bounds = arguments["bounds"]
    assert bounds["hosts"] == ["gpu-a", "gpu-c"]
    assert (bounds["parallel"], bounds.get("max_fail"), bounds["max_fail_percent"]) == (2, None, 10.0)
    assert "@" in bounds["by"]


def test_up_waits_for_the_end_that_the_controller_tells(fleetctl, stage, shown):
    """An outdated host serves, so the pool has what it should; it is over when the controller says so."""

    def bring_up_late() -> None:
        stage.bring_up("gpu-b")
        shown.update(outcome="done")

    stage.goes_up("gpu-a", then=bring_up_late)
    ran = fleetctl("up")
    assert ran.code == 0
    assert "gpu-b        ready" in ran.err


def test_too_many_failures_are_exit_3_and_the_rest_is_named(fleetctl, stage, shown):
    def fail() -> None:
        stage.move("gpu-a", "booting", "failed", error="gpu-a: the disk is full.")
        shown.update(outcome="halted", failed={"gpu-a": "gpu-a: the disk is full."}, left=["gpu-b", "gpu-c"])

    stage.goes_up(then=fail)
    ran = fleetctl("up", "--max-fail", "1")
    assert ran.code == 3
    assert "gpu-a: the disk is full." in ran.err
    assert "1 host failed, so nothing more was begun; left as they are: gpu-b, gpu-c." in ran.err
    assert "`fleetctl up` goes on" in ran.err


@pytest.mark.parametrize(("limit", "code"), [("gpu-a", 4), ("gpu-[ab]", 3)])
def test_hosts_of_a_limit_that_failed_decide_the_exit_code(fleetctl, stage, shown, limit, code):
    def fail() -> None:
        stage.bring_up("gpu-b")
        stage.move("gpu-a", "booting", "unreachable", error="gpu-a: no answer.")
        shown.update(outcome="done", failed={"gpu-a": "gpu-a: no answer."})

    stage.goes_up(then=fail)
    assert fleetctl("up", "--limit", limit).code == code


def test_down_with_a_limit_leaves_the_daemons_at_work(fleetctl, stage, shown):
    stage.journal.set_goal("up")
    for host in ("gpu-a", "gpu-b"):
        stage.bring_up(host)

    def answer(_arguments):
        stage.take_down("gpu-a")
        shown.update(kind="down", outcome="done")
        return "gpu-a go down"

    stage.answers["down"] = answer
    ran = fleetctl("down", "--limit", "gpu-a", "--yes")
    assert ran.code == 0, ran.err
    assert ran.err.splitlines()[-1] == "gpu-a is down"
    assert all(daemon.poll() is None for daemon in stage.daemons.values())
    assert fleetctl("down", "--limit", "gpu-a", "--yes").err == "fleet demo: none of gpu-a is up\n"


def test_a_down_that_halted_leaves_the_daemons_too(fleetctl, stage, shown):
    stage.journal.set_goal("up")
    for host in ("gpu-a", "gpu-b"):
        stage.bring_up(host)

    def answer(_arguments):
        stage.journal.set_goal("down")
        stage.move("gpu-a", "draining", "failed", error="gpu-a: it does not end.")
        shown.update(kind="down", outcome="halted", failed={"gpu-a": "x"}, left=["gpu-b"])
        return "demo goes down"

    stage.answers["down"] = answer
    ran = fleetctl("down", "--yes", "--max-fail", "1")
    assert ran.code == 3
    assert "gpu-a: it does not end." in ran.err
    assert "left as they are: gpu-b" in ran.err
    assert all(daemon.poll() is None for daemon in stage.daemons.values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("up", "--limit", "x*"), 'is called "x*"'),
        (("up", "--limit", "gpu_a"), 'did you mean "gpu-a"?'),
        (("up", "--limit", ","), "--limit names no host"),
        (("plan", "--limit", "x"), 'is called "x"'),
        (("down", "--limit", "x"), 'is called "x"'),
        (("up", "--max-fail", "many"), "no number of hosts"),
        (("up", "--max-fail", "0"), "no number of hosts"),
        (("up", "--max-fail", "120%"), "no number of hosts"),
        (("down", "--max-fail", "-1"), "--max-fail"),
        (("up", "--parallel", "0"), "--parallel"),
        (("up", "nothing.json"), "nothing.json: the plan can't be read: No such file"),
    ],
)
def test_bounds_that_mean_nothing_are_exit_2_and_touch_nothing(fleetctl, folder, arguments, words):
    ran = fleetctl(*arguments)
    assert ran.code == 2
    assert words in ran.err
    assert not (folder / ".fleetctl").exists()


def test_a_plan_file_is_what_json_shows_and_only_a_whole_one_is_taken(fleetctl, folder):
    shown = fleetctl("plan", "-o", "json", "--out", "p.json")
    assert shown.code == 0, shown.err
    assert "written to p.json; apply it with: fleetctl up p.json" in shown.err
    assert json.loads((folder / "p.json").read_text()) == shown.json
    assert {c["host"]: c["action"] for c in shown.json["changes"]} == {
        "gpu-a": "none",
        "gpu-b": "start",
        "gpu-c": "none",
    }
    assert fleetctl("plan", "--out", "/nowhere/p.json").code == 1
    for text, words in (
        ("{", "is not a whole plan file"),
        ("{}", "is no plan of fleetctl"),
        ((folder / "p.json").read_text().replace('"start"', '"stop"', 1), "was changed after"),
        ((folder / "p.json").read_text().replace("plan/v1", "plan/v2"), "another version of fleetctl"),
    ):
        (folder / "bad.json").write_text(text)
        ran = fleetctl("up", "bad.json")
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert words in ran.err
    assert "give --limit to `fleetctl plan`" in fleetctl("up", "p.json", "--limit", "gpu-a").err
    assert not (folder / ".fleetctl").exists()


def test_a_plan_is_refused_before_anything_is_started_where_the_file_changed(fleetctl, folder):
    fleetctl("plan", "--out", "p.json")
    with (folder / "fleet.yaml").open("a") as file:
        file.write("# changed\n")
    ran = fleetctl("up", "p.json")
    assert ran.code == 1
    assert ran.err.splitlines() == [
        "the plan does not fit any more, and nothing was done:",
        "  fleet.yaml was changed",
        "look at what `fleetctl plan --out FILE` says now, and apply that",
    ]
    assert not (folder / ".fleetctl").exists()


def test_what_was_asked_of_a_controller_that_ended_is_taken_back(fleetctl, stage):
    left = stage.journal.ask("down")
    stage.daemons["controller"].kill()
    stage.daemons["controller"].wait()
    (stage.state.path / "controller.pid").unlink()
    stage.state.path.joinpath("balancer.pid").unlink()
    taken = stage.journal.answer(left)
    assert taken is not None and not taken.done

    loaded = spec.load(stage.state.path.parents[1] / "fleet.yaml")
    drop_left_requests(Fleet(loaded, stage.state), stage.journal)
    taken = stage.journal.answer(left)
    assert taken is not None and taken.done and not taken.ok


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_up_that_is_ended_before_its_answer_leaves_no_lock_and_no_half_request(fleetctl, stage, number):
    child = subprocess.Popen(
        [sys.executable, "-m", "fleetctl", "up"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not stage.asked:
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(number)
    child.wait(timeout=60)
    if number is signal.SIGINT:
        assert stage.journal.asked() == []
        assert stage.journal.lock_holder() is None
    for (
        request
    ) in stage.journal.asked():  # whole: with its bounds, to be followed or taken back, never in part
        assert request.args["bounds"]["id"]
    stage.answers["up"] = lambda arguments: "demo goes up"
    ran = fleetctl("up", "--no-wait")
    assert ran.code == 0, ran.err
    assert stage.journal.lock_holder() is None
