from __future__ import annotations

import pytest


@pytest.fixture
def serving(stage):
    """Two hosts serve; `down` is answered, and stops them."""
    stage.journal.set_goal("up")
    stage.bring_up("gpu-a")
    stage.bring_up("gpu-b")

    def answer(_arguments):
        stage.journal.set_goal("down")
        stage.take_down("gpu-a")
        stage.take_down("gpu-b")
        return "demo goes down"

    stage.answers["down"] = answer
    return stage


def test_hosts_first_then_the_controller_then_the_balancer(fleetctl, serving):
    ran = fleetctl("down", "--yes")
    assert ran.code == 0, ran.err
    assert ran.err.splitlines() == [
        "demo goes down",
        "gpu-a        draining     the fleet goes down",
        "gpu-a        stopping     the fleet goes down",
        "gpu-a        off          the fleet goes down",
        "gpu-b        draining     the fleet goes down",
        "gpu-b        stopping     the fleet goes down",
        "gpu-b        off          the fleet goes down",
        "stopped the controller",
        "stopped the balancer",
        "fleet demo is down",
    ]
    assert all(daemon.wait(5) is not None for daemon in serving.daemons.values())


def test_down_twice_has_nothing_to_do_the_second_time(fleetctl, serving):
    fleetctl("down", "--yes")
    ran = fleetctl("down", "--yes")
    assert (ran.code, ran.err) == (0, "fleet demo: nothing is up\n")


def test_a_host_out_of_reach_is_partly_done_and_named(fleetctl, serving):
    def answer(_arguments):
        serving.journal.set_goal("down")
        serving.take_down("gpu-a")
        serving.move("gpu-b", "unreachable", error="gpu-b: no answer within 10 s. Check its network.")
        return "demo goes down"

    serving.answers["down"] = answer
    ran = fleetctl("down", "--yes")
    assert ran.code == 3
    assert "gpu-b: no answer within 10 s. Check its network." in ran.err.splitlines()
    assert "not proved to be off: gpu-b" in ran.err
    assert ran.err.splitlines()[-1] == "fleet demo is partly down"


@pytest.mark.parametrize("gone", [True, False])
def test_a_stop_that_failed_is_named_with_who_tries_it_again(fleetctl, serving, gone):
    def answer(_arguments):
        serving.journal.set_goal("down")
        serving.move("gpu-b", "failed", error="gpu-b: port 8000 is still open, held by pid 7 (nc) of alice.")
        if gone:
            serving.take_down("gpu-a")
        else:
            serving.move("gpu-a", "draining")
        return "demo goes down"

    serving.answers["down"] = answer
    ran = fleetctl("down", "--yes", *([] if gone else ["--timeout", "500ms"]))
    assert ran.code in (1, 3)
    assert "gpu-b: port 8000 is still open, held by pid 7 (nc) of alice." in ran.err.splitlines()
    told = "still to be stopped: gpu-b; nothing tries that again while the fleet is down" in ran.err
    assert told == gone, "where the time was up the controller goes on"


def test_without_a_terminal_it_wants_yes_and_stops_nothing(fleetctl, serving):
    ran = fleetctl("down")
    assert ran.code == 2
    assert "add --yes" in ran.err
    assert serving.asked == []
    assert all(daemon.poll() is None for daemon in serving.daemons.values())


def test_dry_run_lists_what_it_would_stop(fleetctl, serving):
    ran = fleetctl("down", "--dry-run")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "would stop gpu-a",
        "would stop gpu-b",
        "would stop the controller",
        "would stop the balancer",
    ]
    assert serving.asked == []


def test_the_time_out_leaves_the_controller_at_work(fleetctl, serving):
    def answer(_arguments):
        serving.journal.set_goal("down")
        serving.take_down("gpu-a")
        serving.move("gpu-b", "draining")
        return "demo goes down"

    serving.answers["down"] = answer
    ran = fleetctl("down", "--yes", "--timeout", "500ms")
    assert ran.code == 3
    assert "gpu-b is draining; the controller goes on" in ran.err
    assert all(daemon.poll() is None for daemon in serving.daemons.values())


def test_a_fleet_that_was_never_up(fleetctl, folder):
    ran = fleetctl("down")
    assert (ran.code, ran.err) == (0, "fleet demo: nothing is up\n")
    assert not (folder / ".fleetctl").exists()
