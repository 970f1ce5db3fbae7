"""One agent per host, found again by whoever asks, and really gone after stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fleet_lab import processes
from fleet_lab.host import Host, free_port
from fleet_lab.lab import Lab

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install import release as releases
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.machine import LISTEN_TIMEOUT_S, Machine
from fleet_controller.hosts.machines import Machines
from fleet_controller.spec import FleetSpec
from fleet_wire.agent import RunFile

MakeMachine = Callable[..., Machine]


class Hand:
    """A machine with the stand-in for the agent installed."""

    def __init__(
        self, machines: Machines, machine: Machine, release: Release, root: Path, host: Host | None
    ) -> None:
        self.machines = machines
        self.machine = machine
        self.release = release
        self.run = root / "run"
        self.host = host

    def pid(self, run: RunFile) -> int:
        """The agent as this test's /proc names it."""
        return run.pid if self.host is None else self.host.outer_pid(run.pid)

    def start(self, action: str = "a1", token: str = "token") -> RunFile:
        return self.machine.start(self.release, self.machines._spec.models, action, token)


@pytest.fixture(params=[pytest.param("ssh", marks=pytest.mark.machine), "local"])
def hand(
    request: pytest.FixtureRequest, stub_release: Release, state: Path, fleet_of: Callable[..., FleetSpec]
) -> Iterator[Callable[..., Hand]]:
    """`hand(option=...)`: a machine whose agent will behave so."""
    made: list[Hand] = []
    # Asked for here, not when a test first wants it: so that the host outlives the agent that is stopped below.
    lab: Lab | None = request.getfixturevalue("ssh_hosts") if request.param == "ssh" else None

    def make(agent: dict[str, object] | None = None, **options: object) -> Hand:
        if lab is None:
            entry: dict[str, object] = {"name": "h1", "address": "local"}
            root, host = state / "hosts" / "h1", None
        else:
            host = lab.hosts[0] if lab.hosts else lab(1)[0]
            entry, root = host.entry(), host.home / ".fleetctl" / "test" / "h1"
        if agent:
            entry["agent"] = agent
        machines = Machines(fleet_of([entry], **options), state)
        one = Hand(machines, machines.machine("h1"), stub_release, root, host)
        one.machine.install(stub_release)
        made.append(one)
        return one

    yield make
    for one in made:
        with suppress(HostFailure):
            one.machine.stop(0.1)
        one.machines.close()


def listens(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    with suppress(OSError), socket.create_connection((host, int(port)), 1):
        return True
    return False


def alive(pid: int) -> bool:
    return processes.look(pid) is not None


def gone(pid: int) -> bool:
    until = time.monotonic() + 5
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not alive(pid)


def test_start_find_again_and_stop(hand: Callable[..., Hand]) -> None:
    one = hand()
    run = one.start(token="a-secret-token")
    pid = one.pid(run)
    assert one.start() == run, "the same action starts nothing twice"
    assert listens(one.machine.agent_url(run.port))
    config = json.loads((one.run / "config.json").read_text())
    assert Path(config["models"][0]["path"], "model.py").exists()
    assert Path(config["token_file"]).read_text() == "a-secret-token"
    for name in ("token", "config.json", "agent.log"):
        assert stat.S_IMODE((one.run / name).stat().st_mode) == 0o600
    for name in ("cmdline", "environ"):
        assert b"a-secret-token" not in Path(f"/proc/{pid}/{name}").read_bytes()
    assert os.getsid(pid) == pid
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert b"FLEETCTL_AGENT=test/h1/a1" in environ
    assert str(Path(f"/proc/{pid}/fd/0").readlink()) == "/dev/null"

    other = hand().machine  # another controller, later
    agent = other.probe().agent
    assert agent is not None
    assert (agent.pid, agent.alive, agent.port, agent.action_id) == (run.pid, True, run.port, "a1")
    assert agent.release == one.release.key

    stopped = other.stop(5)
    assert stopped.was_running
    assert stopped.killed == ()
    assert gone(pid)
    assert not listens(one.machine.agent_url(run.port))
    assert not (one.run / "token").exists()
    assert one.machine.probe().agent is None
    assert one.machine.stop(5).was_running is False


def test_never_two_agents(hand: Callable[..., Hand]) -> None:
    one = hand()
    run = one.start("a1")
    with pytest.raises(HostFailure) as caught:
        one.start("a2")
    assert caught.value.kind == "conflict"
    assert f"pid {run.pid}" in caught.value.cause
    assert "a1" in caught.value.cause
    assert alive(one.pid(run))


def test_two_controllers_starting_the_same_action_start_one_agent(hand: Callable[..., Hand]) -> None:
    both = [hand(), hand()]
    runs: list[object] = []
    threads = [threading.Thread(target=lambda one=one: runs.append(one.start("a1"))) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 2
    assert runs[0] == runs[1]


def test_an_agent_that_dies_at_once_is_quoted(hand: Callable[..., Hand]) -> None:
    one = hand(crash=True)
    with pytest.raises(HostFailure) as caught:
        one.start()
    assert caught.value.kind == "start"
    assert "no such device: cuda:9" in caught.value.cause
    assert "exit status 1" in caught.value.cause
    assert "fleetctl logs" in caught.value.next_step
    assert "no such device" in one.machine.tail(10)


def test_an_agent_that_never_listens_is_reported_found_and_stopped(hand: Callable[..., Hand]) -> None:
    one = hand(agent={"port": 0, "start_timeout": "1s"}, silent=True)
    assert LISTEN_TIMEOUT_S > 1
    with pytest.raises(HostFailure) as caught:
        one.start()
    assert caught.value.kind == "start"
    assert "does not listen after 1 s" in caught.value.cause
    agent = one.machine.probe().agent
    assert agent is not None
    assert (agent.alive, agent.port, agent.action_id) == (True, 0, "a1")
    with pytest.raises(HostFailure) as caught:
        one.start("a2")
    assert caught.value.kind == "conflict"
    pid = agent.pid if one.host is None else one.host.outer_pid(agent.pid)
    assert one.machine.stop(2).was_running
    assert gone(pid)


def test_what_an_agent_left_behind_is_gone_before_another_starts(hand: Callable[..., Hand]) -> None:
    one = hand(double_fork=True)
    run = one.start("a1")
    pid = one.pid(run)
    supervisor = [p for p in processes.everyone() if str(one.run / "supervise.py") in p.command]
    processes.end(supervisor)  # or it would start the agent again
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    agent = one.machine.probe().agent
    assert agent is not None
    assert not agent.alive
    assert len(processes.marked("FLEETCTL_AGENT=test/h1/a1")) >= 1, "its child outlives it"
    again = one.start("a2")
    assert one.pid(again) != pid
    assert [
        p for p in processes.marked("FLEETCTL_AGENT=test/h1/a1") if root_of(p.pid) == str(one.run.parent)
    ] == []


def root_of(pid: int) -> str:
    with suppress(OSError):
        for item in Path(f"/proc/{pid}/environ").read_text().split("\0"):
            if item.startswith("FLEETCTL_ROOT="):
                return item.removeprefix("FLEETCTL_ROOT=")
    return ""


@pytest.mark.parametrize("options", [{"ignore_term": True}, {"double_fork": True}, {"worker": True}])
def test_stop_ends_what_does_not_want_to_end(options: dict[str, bool], hand: Callable[..., Hand]) -> None:
    one = hand(**options)
    run = one.start()
    pid = one.pid(run)
    members = [p for p in processes.everyone() if root_of(p.pid) == str(one.run.parent)]
    session = [p for p in processes.everyone() if alive(p.pid) and safe_session(p.pid) == pid]
    assert len({p.pid for p in members + session}) >= (1 if "ignore_term" in options else 2)
    stopped = one.machine.stop(0.3)
    assert stopped.was_running
    assert len(stopped.killed) == 1
    assert "pid " in stopped.killed[0]
    for process in members + session:
        assert not process.alive()
    assert not listens(one.machine.agent_url(run.port))


def safe_session(pid: int) -> int:
    with suppress(ProcessLookupError):
        return os.getsid(pid)
    return -1


def test_a_stranger_with_the_old_pid_is_not_touched(hand: Callable[..., Hand]) -> None:
    one = hand()
    run = one.start()
    one.machine.stop(5)
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        # As after a crash and much time: the run file names a pid that somebody else has now.
        record = {**run.model_dump(), "pid": stranger.pid}
        (one.run / "agent.json").write_text(json.dumps(record))
        agent = one.machine.probe().agent
        assert agent is not None
        assert not agent.alive
        assert not one.machine.stop(0.2).was_running
        assert stranger.poll() is None
        # The same from before a reboot, with start ticks that happen to agree.
        now = processes.look(stranger.pid)
        assert now is not None
        record |= {"start_ticks": now.start_ticks, "boot_id": "00000000-0000-0000-0000-000000000000"}
        (one.run / "agent.json").write_text(json.dumps(record))
        assert not one.machine.stop(0.2).was_running
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_port_that_a_stranger_holds_is_named(hand: Callable[..., Hand]) -> None:
    port = free_port("127.0.0.1")
    one = hand(agent={"port": port})
    if not one.machine.spec.is_local and one.machine.spec.ssh.port == 22:
        pytest.skip("the stranger would have to live on the other host")
    code = f"import socket,time; s=socket.create_server(('127.0.0.1',{port})); print(1, flush=True); time.sleep(60)"
    stranger = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        with pytest.raises(HostFailure) as caught:
            one.start()
        assert caught.value.kind == "port"
        assert f"pid {stranger.pid}" in caught.value.cause
    finally:
        stranger.kill()
        stranger.wait()
        stranger.stdout.close()


def test_a_second_stop_does_not_hurry_the_first(hand: Callable[..., Hand]) -> None:
    one, other = hand(ignore_term=True), hand(ignore_term=True)
    pid = one.pid(one.start())
    began = time.monotonic()
    stopped: list[object] = []
    threads = [threading.Thread(target=lambda m=m: stopped.append(m.machine.stop(1.5))) for m in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began > 1.4
    assert len(stopped) == 2
    assert gone(pid)


def test_the_log_is_rotated_once_it_is_big(hand: Callable[..., Hand]) -> None:
    one = hand()
    one.run.mkdir(mode=0o700)
    (one.run / "agent.log").write_bytes(b"old line\n" * 1_300_000)
    one.start()
    assert (one.run / "agent.log.1").stat().st_size > 10_000_000
    assert one.machine.tail(2) == "old line\nstub agent a1"
    assert len(one.machine.tail(10_000_000)) <= 1 << 20


def test_the_log_cannot_write_to_the_terminal(hand: Callable[..., Hand]) -> None:
    one = hand()
    one.run.mkdir(mode=0o700)
    (one.run / "agent.log").write_bytes(b"\x1b[2Jcleared\xff\n")
    assert one.machine.tail(5) == "\ufffd[2Jcleared\ufffd"


@pytest.mark.machine
def test_the_real_agent_serves_and_leaves_nothing_behind(
    ssh_hosts: Lab, fleet_of: Callable[..., FleetSpec], state: Path
) -> None:
    [host] = ssh_hosts(1)
    spec = fleet_of([host.entry()])
    tiny = Path(__file__).parents[2] / "examples" / "tiny"
    spec = spec.model_copy(update={"models": (spec.models[0].model_copy(update={"source": tiny}),)})
    release = releases.build(spec.models)
    with Machines(spec, state) as machines:
        machine = machines.machine("h1")
        machine.install(release)
        run = machine.start(release, spec.models, "a1", "token")
        url = machine.agent_url(run.port)
        until = time.monotonic() + 60
        while True:
            with suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2) as reply:
                assert reply.status == 200
                break
            assert time.monotonic() < until, machine.tail(20)
            time.sleep(0.05)
        body = json.dumps({"instances": [[1.0, 2.0, 3.0, 4.0]]}).encode()
        headers = {"Authorization": "Bearer token", "content-type": "application/json"}
        request = urllib.request.Request(f"{url}/v1/models/tiny:predict", body, headers)
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert len(json.load(reply)["predictions"]) == 1
        stopped = machine.stop(10)
        assert stopped.was_running
        assert stopped.killed == ()
    assert host.left() == []
