"""The small program that keeps an agent running where there is no systemd."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fleet_lab import processes

from fleet_controller.hosts import keeper
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.machine import Machine
from fleet_controller.hosts.machines import Machines
from fleet_controller.spec import FleetSpec

PROGRAM = Path(keeper.__file__).parent / "supervision" / "program.py"

# Says that it listens as the agent does, then ends as it is told.
AGENT = """
import json, os, sys, time
with open({run_file!r}, "w") as file:
    json.dump({{"pid": os.getpid()}}, file)
with open({starts!r}, "a") as file:
    file.write("%d %f\\n" % (os.getpid(), time.monotonic()))
{then}
"""


class Supervised:
    def __init__(self, folder: Path, then: str, listens: bool = True, **changes: Any) -> None:
        self.starts_file = folder / "starts"
        self.state_file = folder / "state.json"
        self.log = folder / "agent.log"
        run_file = folder / ("agent.json" if listens else "another.json")
        code = AGENT.format(run_file=str(run_file), starts=str(self.starts_file), then=then)
        spec = {
            "argv": [sys.executable, "-I", "-S", "-c", code], "env": {}, "log": str(self.log), "log_limit": 1 << 20,
            "run_file": str(folder / "agent.json"), "state": str(self.state_file), "rlimits": {}, "group": None,
            "out_of_memory": "out of memory",
            "crashes": 4, "window_s": 60, "hopeless": 2, "first_s": 0.05, "longest_s": 10, **changes,
        }  # fmt: skip
        (folder / "spec.json").write_text(json.dumps(spec))
        argv = [sys.executable, "-I", "-S", str(PROGRAM), str(folder / "spec.json")]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)

    def starts(self) -> list[tuple[int, float]]:
        with suppress(OSError):
            lines = self.starts_file.read_text().splitlines()
            return [(int(line.split()[0]), float(line.split()[1])) for line in lines]
        return []

    def state(self) -> dict[str, Any]:
        with suppress(OSError):
            return dict(json.loads(self.state_file.read_text()))
        return {}


def soon(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.01)
    return true()


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    made: list[Supervised] = []

    def make(then: str, **changes: Any) -> Supervised:
        made.append(Supervised(tmp_path, then, **changes))
        return made[-1]

    yield make
    for one in made:
        processes.end(processes.tree(one.process.pid))
        one.process.wait(10)


def test_a_crash_is_mended_with_growing_pauses_until_it_gives_up(
    supervised: Callable[..., Supervised],
) -> None:
    one = supervised("os._exit(7)")
    assert one.process.wait(20) == 1
    at = [when for _, when in one.starts()]
    pauses = [after - before for before, after in itertools.pairwise(at)]
    assert len(at) == 4
    assert all(pause >= 0.05 * 2**n for n, pause in enumerate(pauses)), pauses
    assert one.state() == {**one.state(), "doing": "over", "restarts": 3, "last": "exit status 7"}
    assert "crashed 4 times" in one.log.read_text()


@pytest.mark.parametrize(
    ("then", "changes"),
    [("os._exit(0)", {}), ("os._exit(2)", {}), ("os._exit(7)", {"listens": False})],
    ids=["it ended well", "its configuration can't be used", "it never listened"],
)
def test_some_ends_are_final(
    then: str, changes: dict[str, Any], supervised: Callable[..., Supervised]
) -> None:
    one = supervised(then, **changes)
    assert one.process.wait(20) == 1
    assert len(one.starts()) == 1
    assert one.state()["doing"] == "over"


def test_sigterm_is_handed_on_and_ends_it(supervised: Callable[..., Supervised]) -> None:
    one = supervised("time.sleep(60)")
    assert soon(lambda: len(one.starts()) == 1)
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(10) == 0
    assert len(one.starts()) == 1
    assert one.state()["last"] == "killed by signal 15"


def test_sigterm_while_it_waits_ends_it(supervised: Callable[..., Supervised]) -> None:
    one = supervised("os._exit(7)", first_s=30, longest_s=30)
    assert soon(lambda: one.state().get("doing") == "waiting")
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(10) == 0
    assert len(one.starts()) == 1


def test_what_it_leaves_behind_stays_below_the_program(supervised: Callable[..., Supervised]) -> None:
    leave = (
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(60)\n"
        "    os._exit(0)\ntime.sleep(60)"
    )
    one = supervised(leave)
    assert soon(lambda: len(processes.tree(one.process.pid)) == 3)
    one.process.send_signal(signal.SIGTERM)
    assert soon(lambda: one.state().get("doing") == "over")
    left = [p for p in processes.tree(one.process.pid) if p.pid != one.process.pid]
    assert len(left) == 1
    assert one.process.poll() is None, "it stays, or nobody would find that one"
    left[0].send(signal.SIGKILL)
    assert one.process.wait(10) == 0


def test_an_end_for_memory_is_told_apart_from_another_kill(
    supervised: Callable[..., Supervised], tmp_path: Path
) -> None:
    """The kernel's count stands in a file here: no test may need a control group with a memory controller."""
    group = tmp_path / "group"
    group.mkdir()
    (group / "memory.events").write_text("oom 1\noom_kill 3\n")
    kill = "if len(open({starts!r}).readlines()) == 2:\n    {count}\nos.kill(os.getpid(), 9)"
    count = f"open({str(group / 'memory.events')!r}, 'w').write('oom 2\\noom_kill 4\\n')"
    one = supervised(
        kill.format(starts=str(tmp_path / "starts"), count=count),
        group=str(group), out_of_memory="out of memory: so it is", crashes=3,
    )  # fmt: skip
    assert one.process.wait(30) == 1
    told = [
        line.partition("(")[2].partition(")")[0]
        for line in one.log.read_text().splitlines()
        if "it is started again" in line
    ]
    assert told == ["killed by signal 9", "out of memory: so it is"]
    assert one.state()["last"] == "killed by signal 9"


def test_limits_of_a_process_hold(supervised: Callable[..., Supervised]) -> None:
    one = supervised("time.sleep(60)", rlimits={"RLIMIT_NOFILE": 99})
    assert soon(lambda: len(one.starts()) == 1)
    [(pid, _)] = one.starts()
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    assert next(line for line in limits if line.startswith("Max open files")).split()[3:5] == ["99", "99"]
    assert "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text()


def test_on_a_host_it_comes_back_where_it_was_and_is_found(
    fleet_of: Callable[..., FleetSpec], state: Path, stub_release: Release
) -> None:
    spec = fleet_of([{"name": "h1", "address": "local", "agent": {"limits": {"open_files": 777}}}])
    with Machines(spec, state) as machines:
        machine: Machine = machines.machine("h1")
        machine.install(stub_release)
        try:
            run = machine.start(stub_release, spec.models, "a1", "token")
            limits = Path(f"/proc/{run.pid}/limits").read_text().splitlines()
            assert "777" in next(line for line in limits if line.startswith("Max open files"))
            os.kill(run.pid, signal.SIGKILL)
            waiting = machine.probe().agent
            assert waiting is not None
            assert waiting.alive, "its supervisor is about to start it again"
            with pytest.raises(HostFailure) as caught:
                machine.start(stub_release, spec.models, "a2", "token")
            assert caught.value.kind == "conflict"
            again = machine.start(stub_release, spec.models, "a1", "token")
            assert again.pid != run.pid
            assert again.port == run.port
            agent = machine.probe().agent
            assert agent is not None
            assert (agent.restarts, agent.last_end) == (1, "killed by signal 9")
        finally:
            stopped = machine.stop(5)
        assert stopped.was_running
        assert machine.probe().agent is None
    assert not [p for p in processes.everyone() if str(state) in p.command]
