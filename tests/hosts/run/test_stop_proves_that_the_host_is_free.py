"""Stop ends in proof: processes, device memory, port. Or it fails, and names who is in the way."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fleet_lab import processes
from fleet_lab.gpu import Gpu
from fleet_lab.host import Host
from fleet_lab.processes import Process

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.machine import Machine
from fleet_controller.hosts.machines import Machines
from fleet_controller.spec import FleetSpec
from fleet_wire.agent import RunFile


class Hand:
    """A host with a GPU, and the stand-in for the agent."""

    def __init__(self, host: Host, machines: Machines, release: Release) -> None:
        self.host = host
        self.machines = machines
        self.machine: Machine = machines.machine("h1")
        self.release = release
        self.told: list[str] = []

    def start(self, action: str = "a1") -> RunFile:
        models = self.machines._spec.models
        return self.machine.start(self.release, models, action, "token", None, self.told.append)

    def find(self, text: str) -> Process:
        """The one process here whose command holds `text`."""
        until = time.monotonic() + 10
        mine = str(self.host.folder)
        while True:
            found = [p for p in processes.everyone() if text in p.command and mine in p.command]
            if len(found) == 1 or time.monotonic() > until:
                [one] = found
                return one
            time.sleep(0.02)

    def supervisor(self) -> Process:
        return self.find("supervise.py")


@pytest.fixture
def gpu(host: Host) -> Gpu:
    return Gpu(host)


@pytest.fixture
def hand(
    host: Host, gpu: Gpu, stub_release: Release, fleet_of: Callable[..., FleetSpec], state: Path
) -> Iterator[Callable[..., Hand]]:
    made: list[Hand] = []

    def make(needs: str | None = None, **options: Any) -> Hand:
        spec = fleet_of([host.entry(agent={"port": 0, "device": "cuda"})], **options)
        if needs is not None:
            model = spec.models[0].model_copy(update={"device_memory_bytes": int(needs) << 20})
            spec = spec.model_copy(update={"models": (model,)})
        one = Hand(host, Machines(spec, state), stub_release)
        one.machine.install(stub_release)
        made.append(one)
        return one

    yield make
    for one in made:
        with suppress(HostFailure):
            one.machine.stop(0.1)
        one.machines.close()


@pytest.fixture
def stranger(gpu: Gpu) -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """`stranger(4096)`: a process of somebody else that holds so many MiB."""
    made: list[subprocess.Popen[bytes]] = []

    def make(mib: int) -> subprocess.Popen[bytes]:
        code = f"import time; held = open({gpu.memory(mib)!r}); print(1, flush=True); time.sleep(600)"
        one = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert one.stdout is not None
        one.stdout.readline()
        made.append(one)
        return one

    yield make
    for one in made:
        one.kill()
        one.wait()
        assert one.stdout is not None
        one.stdout.close()


def test_memory_that_the_agent_held_is_free_again(hand: Callable[..., Hand], gpu: Gpu) -> None:
    one = hand(gpu=gpu.memory(8000))
    one.start()
    stopped = one.machine.stop(5)
    assert (stopped.was_running, stopped.killed, stopped.notes) == (True, (), ())


def test_a_child_that_hid_from_everything_is_below_the_supervisor(
    hand: Callable[..., Hand], gpu: Gpu
) -> None:
    one = hand(hidden=True, hidden_gpu=gpu.memory(4000))
    one.start()
    hidden = one.find("time.sleep(602)")
    assert os.getsid(hidden.pid) != os.getsid(one.supervisor().pid)
    assert Path(f"/proc/{hidden.pid}/environ").read_bytes() == b""
    stopped = one.machine.stop(5)
    assert [f"pid {hidden.pid} " in name for name in stopped.killed] == [True]
    assert not hidden.alive()


@pytest.mark.slow
def test_one_that_nothing_ties_to_us_is_named_and_holds_the_host_back(
    hand: Callable[..., Hand], gpu: Gpu
) -> None:
    one = hand(hidden=True, hidden_gpu=gpu.memory(4000))
    one.start()
    hidden = one.find("time.sleep(602)")
    out_of_its_group(hidden)
    processes.end([one.supervisor()])
    if processes.look(hidden.pid) is None or processes.look(hidden.pid).parent != 1:  # type: ignore[union-attr]
        pytest.skip("orphans are adopted by another process than PID 1 here")
    with pytest.raises(HostFailure) as caught:
        one.machine.stop(5)
    assert caught.value.kind == "device"
    assert f"pid {hidden.pid} (" in caught.value.cause
    assert f"of {getpass.getuser()}, 3.9 GiB" in caught.value.cause
    assert hidden.alive(), "what is not known to be ours is not killed"
    with pytest.raises(HostFailure, match=f"pid {hidden.pid}"):
        one.machine.stop(5)  # nor is it forgotten
    hidden.send(signal.SIGKILL)
    assert one.machine.stop(5).notes == ()


def out_of_its_group(one: Process) -> None:
    """As where no control group can be made."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if line.split()[2] == "cgroup2":
            with suppress(OSError):
                (Path(line.split()[1]) / "cgroup.procs").write_text(str(one.pid))


@pytest.mark.slow
def test_memory_that_no_process_holds_is_not_free(hand: Callable[..., Hand], gpu: Gpu) -> None:
    one = hand(gpu=gpu.memory(8000))
    one.start()
    gpu.lose(8000)
    with pytest.raises(HostFailure) as caught:
        one.machine.stop(5)
    assert caught.value.kind == "device"
    assert "GPU 0 holds 7.8 GiB more than before it started" in caught.value.cause
    assert "power cycle" in caught.value.next_step


def test_a_stranger_is_told_and_left_alone(
    hand: Callable[..., Hand], stranger: Callable[[int], subprocess.Popen[bytes]], gpu: Gpu
) -> None:
    other = stranger(4096)
    one = hand(needs="8000", gpu=gpu.memory(8000))
    one.start()
    [told] = one.told
    assert told.startswith("GPU 0 is shared with strangers: ")
    assert f"pid {other.pid} (" in told
    later = stranger(2048)
    stopped = one.machine.stop(5)
    assert sorted(f"pid {p.pid} " in " ".join(stopped.notes) for p in (other, later)) == [True, True]
    assert other.poll() is None
    assert later.poll() is None


def test_where_a_stranger_leaves_too_little_room_nothing_is_started(
    hand: Callable[..., Hand], stranger: Callable[[int], subprocess.Popen[bytes]]
) -> None:
    other = stranger(20000)
    one = hand(needs="8000")
    with pytest.raises(HostFailure) as caught:
        one.start()
    assert caught.value.kind == "device"
    assert "GPU 0 has 4.2 GiB free of 24.0 GiB and the models need 7.8 GiB" in caught.value.cause
    assert f"pid {other.pid} (" in caught.value.cause
    assert getpass.getuser() in caught.value.cause
    assert other.poll() is None
    agent = one.machine.probe().agent
    assert agent is None


def test_without_nvidia_smi_it_is_said_that_memory_was_not_checked(
    host: Host, hand: Callable[..., Hand]
) -> None:
    host.find_programs_in("/usr/bin:/bin")
    one = hand()
    one.start()
    assert one.told == ["device memory is not watched: there is no nvidia-smi here"]
    notes = one.machine.stop(5).notes
    assert notes == ("that device memory is free again was not checked: there is no nvidia-smi here",)


def test_who_holds_the_port_is_named_with_its_user(hand: Callable[..., Hand]) -> None:
    one = hand()
    run = one.start()
    processes.end([one.supervisor()])
    os.kill(one.host.outer_pid(run.pid), signal.SIGKILL)
    code = f"import socket, time; s = socket.create_server(('127.0.0.1', {run.port}))"
    code += "; print(1, flush=True); time.sleep(60)"
    stranger = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        with pytest.raises(HostFailure) as caught:
            one.machine.stop(1)
        assert caught.value.kind == "port"
        assert f"pid {stranger.pid} (" in caught.value.cause
        assert f"of {getpass.getuser()}" in caught.value.cause
    finally:
        stranger.kill()
        stranger.wait()
        assert stranger.stdout is not None
        stranger.stdout.close()


def test_a_stop_that_fails_at_the_port_leaves_nothing_of_ours(
    hand: Callable[..., Hand], request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--hosts") == "netns":
        pytest.skip("the stranger is a process of this machine")
    one = hand(double_fork=True)
    run = one.start()
    # Another address of loopback, so that it is there before the agent goes.
    with socket.create_server(("127.0.0.2", run.port)):
        for _ in range(2):
            with pytest.raises(HostFailure) as caught:
                one.machine.stop(30)
            assert caught.value.kind == "port"
            assert f"pid {os.getpid()} (" in caught.value.cause
            assert one.host.left() == [], "no frozen supervisor, for which the next stop would wait"
    assert not one.machine.stop(5).was_running
