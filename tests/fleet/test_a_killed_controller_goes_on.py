"""kill -9 of the controller in the middle of its work: the next one starts and stops nothing twice.

And of the balancer: it is back before the controller's next tick, and knows its hosts.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.timeout(240)]


def test_a_controller_killed_while_it_scales_goes_on_where_it_was(fleet: Any, ssh_hosts: Any) -> None:
    hosts = ssh_hosts(3)
    fleet.write(ssh_hosts.yaml(hosts), {"min_servers": 1, "max_servers": 3})
    fleet.cli("up")
    for kills in range(3):
        fleet.cli("scale", "3", "--no-wait")
        time.sleep(0.3 + 0.7 * kills)  # somewhere in boot, install, start or load
        os.kill(controller_pid(fleet), signal.SIGKILL)
        assert not fleet.status()["controller"]["running"]
        assert fleet.predict([[1, 2, 3, 4]]).status_code == 200  # the front door does not need it
        fleet.cli("up")
        fleet.wait_ready(3)
        agents = {h.name: h.agents() for h in hosts}
        assert all(len(found) == 1 for found in agents.values()), agents
        fleet.cli("scale", "1")
    os.kill(ready(fleet)["pid"], signal.SIGKILL)
    killed_at = time.monotonic()
    while not answers(ready(fleet)):
        assert time.monotonic() < killed_at + 5.0, "about 0.7 s on a quiet machine"
        time.sleep(0.01)
    assert any("the balancer ended, and was started again in" in e["reason"] for e in fleet.events())
    fleet.cli("down", "--yes")
    for host in hosts:
        assert host.left() == [], f"{host.name} still runs {host.left()}"


def controller_pid(fleet: Any) -> int:
    return int(json.loads((fleet.folder / ".fleetctl" / "test" / "controller.pid").read_text())["pid"])


def ready(fleet: Any) -> dict[str, Any]:
    """What the balancer says of itself, nothing while there is none."""
    file = fleet.folder / ".fleetctl" / "test" / "balancer.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def answers(door: dict[str, Any]) -> bool:
    try:
        url = f"http://{door['listen']}/v1/models/tiny:predict"
        return httpx.post(url, json={"instances": [[1, 2, 3, 4]]}, timeout=5).status_code == 200
    except (KeyError, httpx.HTTPError):
        return False
