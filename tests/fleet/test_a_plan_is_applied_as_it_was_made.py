"""`plan --out`, `up FILE`, `--limit`, and two operators at once, on a real fleet of local hosts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow

HOSTS = 'hosts: [{name: "h[1:3]", address: local, price_per_hour: 2.5, watts: 300}]'
# A model that is loaded until the test lets it.
ENDLESS = """\
import pathlib
import time


class Endless:
    def load(self, device, options):
        while not pathlib.Path(options["until"]).exists():
            time.sleep(0.05)

    def forward(self, batch):
        return batch
"""
SCALING = {"min_servers": 1, "max_servers": 3}


def actions(plan: dict[str, Any]) -> dict[str, str]:
    return {change["host"]: change["action"] for change in plan["changes"]}


def made(fleet: Any, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.cli("plan", "-o", "json", *options))
    return found


def test_a_plan_is_done_exactly_once_and_the_next_one_is_empty(fleet: Any) -> None:
    fleet.write(HOSTS, SCALING)
    file = fleet.folder / "p.json"
    plan = made(fleet, "--out", str(file))
    assert json.loads(file.read_text()) == plan
    assert actions(plan) == {"h1": "start", "h2": "none", "h3": "none"}
    assert plan["totals"]["cost_per_hour"] == {"from": 0.0, "to": 2.5}
    assert plan["totals"]["watts"] == {"from": 0.0, "to": 300.0}
    assert not (fleet.folder / ".fleetctl").exists()

    fleet.cli("up", str(file))
    assert fleet.in_state("ready") == ["h1"]
    empty = made(fleet)
    assert empty["steps"] == [] and set(actions(empty).values()) == {"none"}
    assert "nothing to do" in fleet.cli("plan")

    before = {name: host["state"] for name, host in fleet.hosts().items()}
    refused = fleet.run("up", str(file))
    assert refused.returncode == 1
    assert "the fleet was down and is up now" in refused.stderr
    assert "h1 was off and is ready now" in refused.stderr
    assert {name: host["state"] for name, host in fleet.hosts().items()} == before

    # a rollout, told before it is done; the file counts from the `up` on
    fleet.write(HOSTS, SCALING, model={"version": "2"}, controller={"interval": "1s", "apply": "up"})
    fleet.cli("up")
    fleet.write(HOSTS, SCALING, model={"version": "3"}, controller={"interval": "1s", "apply": "up"})
    rollout = made(fleet, "--out", str(file))
    [change] = [c for c in rollout["changes"] if c["action"] == "start"]
    assert sorted(actions(rollout).values()) == ["none", "start", "stop"]
    assert change["models"]["to"] == [{"name": "tiny", "version": "3"}]
    fleet.cli("up", str(file))
    assert made(fleet)["steps"] == []
    assert [h["models"] for h in fleet.hosts().values() if h["state"] == "ready"] == [
        [{"name": "tiny", "version": "3", "ready": True}]
    ]


def test_a_limit_holds_and_so_does_what_was_taken_down(fleet: Any) -> None:
    fleet.write(HOSTS, SCALING | {"min_servers": 2})
    fleet.cli("up", "--limit", "h3")
    assert fleet.in_state("ready") == ["h3"]
    assert made(fleet, "--limit", "h3")["steps"] == []
    assert sorted(actions(made(fleet)).values()) == ["none", "none", "start"]
    shown = fleet.hosts()["h1"]
    assert shown["state"] == "off" and "not asked for" in shown["reason"]
    fleet.cli("up", "--parallel", "1")
    assert len(fleet.in_state("ready")) == 2
    one = next(name for name in fleet.in_state("ready") if name != "h3")
    fleet.cli("down", "--limit", f"h3,{one}", "--yes")
    fleet.wait_ready(1)  # the third takes their place: the pool asks for servers
    assert {"h3", one}.isdisjoint(fleet.in_state("ready"))


def test_the_second_operator_is_told_who_is_at_work_and_a_dead_one_is_forgotten(fleet: Any) -> None:
    (fleet.folder / "endless").mkdir()
    (fleet.folder / "endless" / "model.py").write_text(ENDLESS)
    loaded = fleet.folder / "loaded"
    source = {
        "source": str(fleet.folder / "endless"),
        "entrypoint": "model:Endless",
        "options": {"until": str(loaded)},
    }
    fleet.write(HOSTS, SCALING, model=source)
    argv = [sys.executable, "-m", "fleetctl", "-f", str(fleet.file), "up", "--limit", "h1"]
    first = subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert first.stderr is not None
    try:
        assert any("loading" in line for line in first.stderr)
        second = fleet.run("up")
        assert second.returncode == 1
        assert f"`fleetctl up --limit h1` (process {first.pid}) since " in second.stderr
        assert "Ctrl-C" in second.stderr
        assert fleet.run("down", "--yes").returncode == 1
        # reading, and asking one thing of the controller, waits for nobody
        assert fleet.run("plan").returncode == 0
        assert fleet.run("scale", "2", "--no-wait").returncode == 0
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
        loaded.touch()
    assert fleet.run("up", "--no-wait").returncode == 0


def test_a_halted_rollout_leaves_the_others_serving(fleet: Any) -> None:
    fleet.write(HOSTS, SCALING | {"min_servers": 3})
    fleet.cli("up")
    fleet.write(
        HOSTS,
        SCALING | {"min_servers": 3},
        model={"version": "2", "options": {"there_is_no_such": 1}},
        controller={"interval": "1s", "apply": "up"},
    )
    done = fleet.run("up", "--max-fail", "1")
    assert done.returncode == 3, done.stderr
    assert "1 host failed, so nothing more was begun; left as they are:" in done.stderr
    assert len(fleet.in_state("ready")) == 2
    assert fleet.predict([[1.0, 2.0, 3.0, 4.0]]).status_code == 200
