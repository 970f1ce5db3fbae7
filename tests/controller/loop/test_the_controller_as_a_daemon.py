"""The program itself: one tick, one at a time, killed at any moment, ended in order."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Fleet

MakeFleet = Callable[..., "Fleet"]
SEED = 20


def said(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    answer: dict[str, Any] = json.loads(out)
    return answer


@pytest.mark.slow
def test_once_brings_up_a_real_agent_and_the_second_time_there_is_nothing_to_do(fleet: MakeFleet) -> None:
    one = fleet(standin=False)
    first = said(one.daemon("--once"))
    assert first["schema"] == "fleetctl/tick/v1"
    assert first["decisions"]["default"]["desired"] == 1
    assert [(s["kind"], s["host"], s["pool"]) for s in first["steps"]] == [("start", "a", "default")]
    assert one.states() == {"a": "ready", "b": "off", "c": "off"}
    [pid] = one.agents()["a"]
    assert said(one.daemon("--once"))["steps"] == []
    for killed in (*one.supervisors(), pid):
        os.kill(killed, signal.SIGKILL)
    looked = said(one.daemon("--once"))["steps"]
    assert [(s["kind"], s["host"]) for s in looked] == [("inspect", "a")]
    assert one.states()["a"] == "failed"
    assert one.agents() == {}  # its worker is not left behind
    assert [s["kind"] for s in said(one.daemon("--once"))["steps"]] == ["start"]
    assert one.count("ready") == 1


def test_a_second_controller_is_refused_and_names_the_first(fleet: MakeFleet) -> None:
    one = fleet(hosts=1)
    first = one.daemon()
    one.until(lambda: one.count("ready") == 1, "ready")
    for options in ([], ["--once"]):
        second = one.daemon(*options)
        _, err = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"process {first.pid} holds the controller lock in {one.state.path}" in err.decode()
        assert err.decode().count("\n") == 1
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0
    assert one.count("ready") == 1  # a controller that ends takes nothing with it


def test_a_controller_will_not_abandon_a_host_that_left_fleet_yaml_in_its_absence(fleet: MakeFleet) -> None:
    one = fleet(hosts=2)
    said(one.daemon("--once"))

    def without_a(spec: dict[str, Any]) -> None:
        spec["hosts"] = spec["hosts"][1:]
        spec["pools"][0]["hosts"] = ["b"]
        spec["pools"][0]["scaling"]["max_servers"] = 1

    one.change(without_a)
    process = one.daemon("--once")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "fleet.yaml no longer has a (ready)" in err.decode()
    assert one.states()["a"] == "ready"


def test_a_place_that_cannot_be_written_is_one_line_and_exit_1(fleet: MakeFleet) -> None:
    one = fleet(hosts=1)
    (one.folder / "file").write_text("")
    for state in (f"sqlite:///{one.folder}/file/state.db", "nonsense"):
        process = one.daemon("--state", state)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert err.decode().count("\n") == 1
        assert "Traceback" not in err.decode()


def test_one_whose_state_store_was_deleted_ends_and_leaves_all_as_it_is(fleet: MakeFleet) -> None:
    one = fleet(hosts=1)
    controller = one.daemon()
    one.until(lambda: one.count("ready") == 1, "ready")
    agents, balancer = one.agents(), one.balancer.find()
    store = one.state.path / "state.db"
    store.rename(store.with_name("away"))
    _, err = controller.communicate(timeout=60)
    assert controller.returncode == 1
    assert b"was deleted or replaced while it was in use" in err
    assert (one.agents(), one.balancer.find()) == (agents, balancer)
    store.with_name("away").rename(store)


def test_a_full_disk_holds_it_up_and_it_goes_on_when_there_is_room(fleet: MakeFleet) -> None:
    one = fleet(hosts=2)
    controller = one.daemon()
    one.until(lambda: one.count("ready") == 1, "ready")
    agents = one.agents()
    # no file can grow any more, which to the state store is a full disk
    resource.prlimit(controller.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    key = one.journal.ask("scale", pool="default", servers=2)
    # who meets it first, an errand on its way or the controller's own round, is a matter of luck
    assert controller.stderr is not None
    assert any(b"nothing is done while the state can't be recorded: " in line for line in controller.stderr)
    assert (one.agents(), controller.poll()) == (agents, None)
    assert not one.answer(key).done
    resource.prlimit(controller.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    one.until(lambda: one.count("ready") == 2, "two")
    assert one.answer(key).ok
    assert one.starts().total() == 2


@pytest.mark.slow
def test_killed_15_times_during_a_scale_up_it_starts_nothing_twice(fleet: MakeFleet) -> None:
    one = fleet(hosts=3)
    for name in "abc":
        one.behave(name, load_s=2.0)
    one.journal.set_goal("up")
    dice = random.Random(SEED)
    asked, cut_off = False, 0
    for _ in range(15):
        begun = len(one.events())
        controller = one.daemon()
        if not asked:
            one.until(lambda: one.count("ready") == 1, "the first")
            one.journal.ask("scale", pool="default", servers=3)
            asked = True
        else:
            # at work, or long enough at it to have found nothing to do
            deadline = time.monotonic() + 3.0
            while len(one.events()) == begun and controller.poll() is None and time.monotonic() < deadline:
                if one.count("ready") == 3:
                    break
                time.sleep(0.02)
        time.sleep(dice.uniform(0.0, 0.5))
        assert controller.poll() is None, controller.communicate()[1].decode()
        controller.kill()
        controller.wait()
        cut_off += len(one.journal.open_actions())
        assert all(len(pids) == 1 for pids in one.agents().values()), one.agents()
        if one.count("ready") == 3:
            # there is nothing left to disturb: start over
            one.journal.ask("scale", pool="default", servers=1)
            calm = one.daemon()
            one.until(lambda: one.count("off") == 2, "back to one")
            one.journal.ask("scale", pool="default", servers=3)
            calm.kill()
            calm.wait()
    assert cut_off >= 5  # or the kills hit nothing
    one.daemon()
    one.until(lambda: one.count("ready") == 3, "three in the end")
    assert sorted(one.agents()) == ["a", "b", "c"]
    assert all(len(pids) == 1 for pids in one.agents().values())
    assert set(one.starts().values()) == {1}, one.starts()  # each action started its agent once
    assert one.journal.open_actions() == []
    assert one.events("failed") == []
