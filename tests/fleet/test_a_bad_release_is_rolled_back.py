"""At 3 a.m.: the new release does not load. `fleetctl rollback` brings back what served before, and keeps it there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.timeout(420)]

REPO = Path(__file__).resolve().parents[2]


def installed(fleet: Any) -> list[dict[str, Any]]:
    return [event for event in fleet.events() if event["kind"] == "installed"]


def test_the_release_that_served_before_comes_back_until_fleet_yaml_changes(fleet: Any) -> None:
    source = fleet.folder / "tiny"
    shutil.copytree(REPO / "examples" / "tiny", source)
    good = (source / "model.py").read_text()
    hosts = 'hosts: [{name: "h1", address: local}]'
    fleet.write(hosts, {"min_servers": 1, "max_servers": 1}, model={"source": str(source)})
    assert "has served with no other release" in fleet.run("rollback").stderr
    fleet.cli("up")
    assert fleet.predict([[1.0, 2.0, 3.0, 4.0]]).status_code == 200
    assert installed(fleet)[-1]["sent_bytes"] > 0
    fleet.cli("up")
    assert len(installed(fleet)) == 1, "what runs is not even asked"

    (source / "model.py").write_text(good + "\nraise RuntimeError('shipped on a Friday')\n")
    assert fleet.run("up", "--timeout", "60").returncode != 0
    assert fleet.pool()["ready"] == 0
    listed = json.loads(fleet.cli("rollback", "--list", "-o", "json"))["pools"][0]
    assert len(listed["served"]) == 1
    assert listed["wanted"] != listed["served"][0], "what never served is nothing to go back to"

    said = fleet.run("rollback")
    assert said.returncode == 0, said.stderr
    assert f"goes back to release {listed['served'][0]}" in said.stderr
    assert "fleet.yaml still asks for" in said.stderr
    fleet.wait_ready(1)
    assert fleet.predict([[1.0, 2.0, 3.0, 4.0]]).status_code == 200
    assert installed(fleet)[-1]["sent_bytes"] == 0, "it was still there"
    assert fleet.status()["controller"]["rolled_back"] == {"default": listed["wanted"]}
    assert "default was rolled back" in fleet.cli("status")
    # it holds over a restart of everything, and a second `up`
    fleet.cli("down", "--yes")
    fleet.cli("up")
    assert fleet.predict([[1.0, 2.0, 3.0, 4.0]]).status_code == 200
    assert fleet.run("rollback").returncode == 1, "it is there already"

    # mended: what fleet.yaml asks for is another release, and so that runs
    (source / "model.py").write_text(good + "\nMENDED = True\n")
    fleet.cli("up")
    after = json.loads(fleet.cli("rollback", "--list", "-o", "json"))["pools"][0]
    assert after["in_force"] == after["wanted"]
    fleet.wait(
        "the mended one serves",
        lambda: installed(fleet)[-1]["reason"].startswith(f"release {after['wanted']}"),
    )
    fleet.wait_ready(1)
    assert fleet.run("rollback", "--clear").returncode == 1
