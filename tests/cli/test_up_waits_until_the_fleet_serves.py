from __future__ import annotations

import pytest


def test_up_tells_each_change_and_ends_with_the_endpoint(fleetctl, stage):
    stage.goes_up("gpu-a")
    ran = fleetctl("up")
    assert ran.code == 0, ran.err
    lines = ran.err.splitlines()
    assert lines[0] == "demo goes up"
    assert lines[1] == "gpu-a        booting      desired 1 (min_servers)"
    assert [text.split()[1] for text in lines[1:]] == [
        "booting",
        "reachable",
        "installing",
        "starting",
        "loading",
        "ready",
    ]
    out = ran.out.splitlines()
    assert out[0] == "endpoint  http://127.0.0.1:8080"
    assert out[1] == "pool      default: 1 of 1 ready"
    assert out[2].startswith("try it    curl -sS http://127.0.0.1:8080/v1/models/hello:predict ")


def test_a_host_that_failed_while_another_took_its_place_is_partly_done(fleetctl, stage):
    error = "gpu-a: No space left on the disk. Free some and run `fleetctl up` again."

    def fail_and_replace() -> None:
        stage.move("gpu-a", "booting", "failed", reason="start failed", error=error)
        stage.bring_up("gpu-b")

    stage.goes_up(then=fail_and_replace)
    ran = fleetctl("up")
    assert ran.code == 3
    assert error in ran.err.splitlines()
    assert "1 of 1 ready" in ran.out


def test_no_host_reachable_is_exit_4(fleetctl, stage):
    def lose_all() -> None:
        for host in ("gpu-a", "gpu-b", "gpu-c"):
            stage.move(host, "booting", "unreachable", error=f"{host}: nothing listens on port 22.")

    stage.goes_up(then=lose_all)
    ran = fleetctl("up")
    assert ran.code == 4
    for host in ("gpu-a", "gpu-b", "gpu-c"):
        assert f"{host}: nothing listens on port 22." in ran.err.splitlines()
    assert "0 of 1 ready" in ran.out
    assert "curl" not in ran.out


def test_every_host_failed_otherwise_is_exit_1(fleetctl, stage):
    def fail_all() -> None:
        stage.move("gpu-a", "booting", "unreachable", error="gpu-a: nothing listens on port 22.")
        stage.move("gpu-b", "booting", "failed", error="gpu-b: python3 is missing.")
        stage.hosts["gpu-c"]["cordoned"] = True

    stage.goes_up(then=fail_all)
    assert fleetctl("up").code == 1


@pytest.mark.parametrize(("already", "code"), [(["gpu-a"], 3), ([], 1)])
def test_the_time_out_says_what_is_still_missing(fleetctl, stage, already, code):
    stage.pools[0]["desired"] = 2
    stage.goes_up(*already, then=lambda: stage.move("gpu-b", "booting", "reachable", "installing"))
    ran = fleetctl("up", "--timeout", "1s")
    assert ran.code == code
    assert (
        f"not done after 1s: pool default has {len(already)} of 2 hosts ready (gpu-b is installing)"
        in ran.err
    )


def test_no_wait_returns_at_once(fleetctl, stage):
    stage.goes_up()
    ran = fleetctl("up", "--no-wait")
    assert (ran.code, ran.out) == (0, "")
    assert "fleetctl status --watch" in ran.err


def test_a_refused_request_is_one_line_and_exit_1(fleetctl, stage):
    def refuse(_arguments):
        raise stage.Refused("fleet.yaml no longer has gpu-z (ready); put it back")

    stage.answers["up"] = refuse
    ran = fleetctl("up")
    assert (ran.code, ran.err) == (1, "fleet.yaml no longer has gpu-z (ready); put it back\n")


def test_a_controller_that_dies_while_we_wait_is_told_with_its_last_words(fleetctl, stage):
    def die() -> None:
        stage.daemons["controller"].kill()
        stage.daemons["controller"].wait()

    stage.pools[0]["desired"] = 1
    stage.goes_up(then=die)
    ran = fleetctl("up")
    assert ran.code == 1
    assert "the controller ended" in ran.err
    assert "controller line 2" in ran.err


def test_somebody_who_asks_for_down_meanwhile_ends_the_wait(fleetctl, stage):
    stage.goes_up(then=lambda: stage.journal.set_goal("down"))
    ran = fleetctl("up")
    assert ran.code == 1
    assert "somebody asked for `fleetctl down` meanwhile" in ran.err


def test_two_operators_at_once_are_told_apart(fleetctl, stage):
    with stage.state.lock("operator"):
        ran = fleetctl("up")
    assert ran.code == 1
    assert ran.err.startswith("another fleetctl is at work: process ")


def test_dry_run_shows_the_steps_and_touches_nothing(fleetctl, folder):
    before = sorted(path.name for path in folder.rglob("*"))
    ran = fleetctl("up", "--dry-run")
    assert ran.code == 0, ran.err
    assert [line.split()[:2] for line in ran.out.splitlines() if "start " in line] == [["start", "gpu-b"]]
    assert sorted(path.name for path in folder.rglob("*")) == before
