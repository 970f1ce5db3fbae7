"""A stop that can't be proved is never a silent success: the operator sees who is in the way, wherever he looks.

The model leaves a child that forked itself away into a session of its own: that one is ours, and ends with the agent.
A stranger takes the agent's port: that one is named and left alone, and its host is left alone too.
"""

from __future__ import annotations

import getpass
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fleet_lab.host import Host
from fleet_lab.lab import Lab

if TYPE_CHECKING:
    from conftest import Fleet

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.timeout(400)]

REPO = Path(__file__).resolve().parents[2]
# Another address of loopback: the agent has its own one still, and a port is not free while anybody listens on it.
SQUATTER = """
import socket, sys
taken = socket.create_server(("127.0.0.2", int(sys.argv[1])))
print("taken", flush=True)
sys.stdin.read()
"""
RUNAWAY = """
import subprocess
subprocess.Popen(["setsid", "--fork", "sleep", "86399"], start_new_session=True).wait()
"""


@pytest.fixture
def squat(tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """`squat(port)`: a process that has nothing to do with us listens there."""
    script = tmp_path / "squatter.py"
    script.write_text(SQUATTER)
    made: list[subprocess.Popen[str]] = []

    def take(port: int) -> subprocess.Popen[str]:
        argv = [sys.executable, str(script), str(port)]
        one = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        made.append(one)
        assert one.stdout is not None
        assert one.stdout.readline() == "taken\n"
        return one

    yield take
    for one in made:
        go(one)


def go(one: subprocess.Popen[str]) -> None:
    one.communicate()  # its standard input ends, and so does it
    assert one.returncode == 0


@pytest.fixture
def hosts(fleet: Fleet, ssh_hosts: Lab, request: pytest.FixtureRequest) -> dict[str, Host]:
    """Two hosts that serve a model with a runaway child."""
    if request.config.getoption("--hosts") == "netns":
        pytest.skip("the stranger is a process of this machine")
    made = ssh_hosts(2)
    source = fleet.folder / "tiny"
    shutil.copytree(REPO / "examples" / "tiny", source)
    with (source / "model.py").open("a") as model:
        model.write(RUNAWAY)
    scaling = {"min_servers": 1, "max_servers": 2}
    fleet.write(ssh_hosts.yaml(made), scaling, model={"source": str(source)})
    fleet.cli("up")
    fleet.cli("scale", "2")
    return {host.name: host for host in made}


def described(fleet: Fleet, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.cli("hosts", "describe", name, "-o", "json"))
    return found


def port_of(fleet: Fleet, name: str) -> int:
    return int(described(fleet, name)["state"]["agent_port"])


def test_a_stranger_on_the_port_is_shown_and_nothing_is_started_until_it_is_gone(
    fleet: Fleet, hosts: dict[str, Host], squat: Callable[[int], subprocess.Popen[str]]
) -> None:
    assert all(any("sleep 86399" in one.command for one in host.left()) for host in hosts.values())
    strangers = {name: squat(port_of(fleet, name)) for name in hosts}

    done = fleet.run("scale", "1")
    [held] = [name for name, host in fleet.hosts().items() if host["state"] == "failed"]
    [serves] = set(hosts) - {held}
    go(strangers[serves])
    culprit = f"pid {strangers[held].pid} ("
    named = (culprit, "squatter.py", f") of {getpass.getuser()}", held, "quarantine")
    assert done.returncode == 3, done.stderr
    seen_in(named, "scale", done.stderr)
    seen_in(named, "status", fleet.cli("status"))
    page = fleet.cli("hosts", "describe", held)
    seen_in((*named, "it is not proven to be free; next try in"), "hosts describe", page)
    assert "failures in a row" not in page, "it was one stop"
    seen_in(named, "events", fleet.cli("events"))
    shown = fleet.hosts()[held]
    assert shown["quarantined"]
    seen_in(named, "status -o json", shown["error"])
    told = described(fleet, held)["state"]
    assert told["quarantined"] and told["quarantine"] == "unproven"
    seen_in(("1 host is not proven to be free",), "explain", fleet.cli("explain"))
    seen_in(named, "hosts describe -o json", told["error"])
    failures = [e for e in fleet.events() if e["host"] == held and e["kind"] == "failed"]
    seen_in(named, "events -o json", json.dumps(failures[-1], ensure_ascii=False))
    assert hosts[held].left() == [], "what the agent left behind is gone"

    before = len(fleet.events())
    done = fleet.run("scale", "2")
    assert done.returncode == 3, done.stdout + done.stderr
    assert hosts[held].agents() == []
    begun = [e for e in fleet.events()[before:] if e["host"] == held and e["kind"] in ("booting", "starting")]
    assert begun == [], "nothing is started on a host that is not proved to be free"
    assert strangers[held].poll() is None, "whoever is not ours is left alone"

    go(strangers[held])
    fleet.cli("uncordon", held)
    fleet.wait_ready(2, timeout_s=120)
    assert fleet.hosts()[held]["error"] is None

    stranger = squat(port_of(fleet, held))
    named = (f"pid {stranger.pid} (", "squatter.py", held)
    done = fleet.run("down", "--yes")
    assert done.returncode == 3, done.stderr
    seen_in(named, "down", done.stderr)
    assert f"still to be stopped: {held}; nothing tries that again while the fleet is down" in done.stderr
    assert "partly down" in done.stderr
    assert [host.left() for host in hosts.values()] == [[], []]
    seen_in(named, "status after down", fleet.cli("status"))
    done = fleet.run("down", "--yes")
    assert done.returncode == 1, "it is still not proved"
    seen_in(named, "down again", done.stderr)

    go(stranger)
    assert "is down" in fleet.run("down", "--yes").stderr
    assert {host["state"] for host in fleet.hosts().values()} == {"off"}
    seen_in(("SIGKILL ended what did not end by itself: pid ", "sleep 86399"), "events", fleet.cli("events"))


def seen_in(words: tuple[str, ...], where: str, text: str) -> None:
    """All of them are in the text, however it was wrapped to fit a page."""
    flat = "".join(text.split())
    missing = [word for word in words if "".join(word.split()) not in flat]
    assert not missing, f"{where} does not say {missing}:\n{text}"
