"""The real controller process, killed, failing or hung once at each failpoint: the fleet comes out right.

The stand-ins' own log is the witness. One test a case, so that several run at once (`make test-failpoints`, some 15 s
each); FLEETCTL_POINTS=text tries only the points whose name contains it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fleet_world.points import points

from fleet_controller.journal import Journal

if TYPE_CHECKING:
    from conftest import Fleet
    from fleet_lab.host import Host
    from fleet_lab.lab import Lab

MakeFleet = Callable[..., "Fleet"]
HANGS_S = "10"
# What only a command line commits: it dies there, and is given again.
COMMANDS = {
    "journal.ask": "journal.ask('scale', pool='default', servers=2)",
    "journal.withdraw": "journal.withdraw(10**6)",
    "journal.add_key": "journal.add_key(KeyRecord('key', '0' * 64, 1.0))",
    "journal.revoke_key": "journal.revoke_key('key', 2.0)",
    "journal.allow_removal": "journal.allow_removal(['a'])",
}
# Reached only where a machine can be switched, and that is not a local one.
SWITCHED = ("machine.power_on", "machine.power_off")
WANTED = [point for point in points() if os.environ.get("FLEETCTL_POINTS", "") in point]


def command(one: Fleet, name: str, env: dict[str, str]) -> None:
    code = (
        "import sys\nfrom fleet_controller.journal import Journal, KeyExists, KeyRecord\n"
        f"journal = Journal.open(sys.argv[1])\ntry:\n    {COMMANDS[name]}\nexcept KeyExists:\n    pass\n"
    )
    argv = [sys.executable, "-c", code, one.state.journal_url]
    try:
        subprocess.run(argv, env={**os.environ, **env}, timeout=20, capture_output=True)
    except subprocess.TimeoutExpired:
        pass  # it hangs, and the operator presses Ctrl-C


class Power:
    """A switch for each machine, all off at first, and a line in `log` for each time that it was used."""

    def __init__(self, folder: Path, hosts: list[Host]) -> None:
        self._folder = folder
        self._hosts = hosts
        self._log = folder / "power.log"
        command = folder / "power"
        command.write_text(
            f'#!/bin/sh\ncase "$1" in\nstatus) cat {folder}/"$2".power ;;\n'
            f'*) echo "$1" > {folder}/"$2".wanted; echo "$2 $1" >> {self._log} ;;\nesac\n'
        )
        command.chmod(0o755)
        self.spec = {
            "driver": "command",
            **{word: [str(command), word, "{name}"] for word in ("on", "off", "status")},
        }
        for host in hosts:
            self._switch(host, "off")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._obey)
        self._thread.start()

    def _obey(self) -> None:
        while not self._end.wait(0.05):
            for host in self._hosts:
                wanted = self._folder / f"{host.name}.wanted"
                if wanted.exists() and (word := wanted.read_text().strip()):
                    wanted.unlink()
                    self._switch(host, word)

    def _switch(self, host: Host, word: str) -> None:
        if word == "on":
            host.start()
        else:
            host.kill()
        (self._folder / f"{host.name}.power").write_text(f"{word}\n")

    def close(self) -> None:
        self._end.set()
        self._thread.join()

    def never_twice(self) -> None:
        """No machine was switched on that was on, or off that was off."""
        last: dict[str, str] = {}
        lines = self._log.read_text().splitlines()
        assert lines
        for line in lines:
            name, word = line.split()
            assert last.get(name, "off") != word, lines
            last[name] = word


class Keeper:
    """Keeps a controller running; the first one has the failpoint."""

    def __init__(self, one: Fleet, env: dict[str, str]) -> None:
        self._one = one
        self._log = (one.folder / "controller.err").open("ab")
        self._env = env
        self.process = self._start(env)

    def _start(self, env: dict[str, str]) -> subprocess.Popen[bytes]:
        argv = [
            sys.executable,
            "-m",
            "fleet_controller",
            "--fleet",
            str(self._one.file),
            "--watchdog",
            HANGS_S,
        ]
        return subprocess.Popen(argv, env={**os.environ, **env}, stdout=self._log, stderr=self._log)

    def reached(self) -> bool:
        return b"failpoint " in (self._one.folder / "controller.err").read_bytes()

    def until(self, true: Callable[[], bool], what: str, timeout_s: float = 150.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not true():
            if self.process.poll() is not None:  # killed: whoever supervises it starts the next one
                self.process = self._start({})
            if time.monotonic() > deadline:
                log = (self._one.folder / "controller.err").read_text()[-3000:]
                raise AssertionError(f"not in {timeout_s} s: {what} {self._one.states()}\n{log}")
            time.sleep(0.1)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


def days_work(one: Fleet, point: str, how: str) -> None:
    name, armed = point.rpartition(".")[0], {"FLEETCTL_FAILPOINT": f"{point}={how}"}
    keeper = Keeper(one, {} if name in COMMANDS else armed)
    try:
        keeper.until(lambda: one.count("ready") == 1 and one.journal.goal() != "down", "one ready")
        if name in COMMANDS:
            command(one, name, armed)
            command(one, name, {})
        else:
            one.journal.ask("up")
            one.journal.ask("scale", pool="default", servers=2)
            keeper.until(lambda: one.count("ready") == 2, "two ready")
            one.change(lambda spec: spec["pools"][0]["scaling"].update(max_servers=2, min_servers=1))
            one.change(lambda spec: spec["balancer"].update(timeouts={"idle": "61s"}))
            if name == "daemon.stop":
                ready = one.balancer.ready()
                os.kill(int(str(ready["pid"])), 19)  # SIGSTOP: the loop stops it
                keeper.until(keeper.reached, "the balancer is stopped")
            one.journal.ask("scale", pool="default", servers=1)
            keeper.until(lambda: one.count("ready") == 1 and one.count("off") == 2, "one again")
            keeper.until(keeper.reached, f"{point} to be reached")
            # a hang is over when the watchdog has done its work
            keeper.until(lambda: how != "hang" or b"starts afresh" in one_log(one), "the watchdog")
        keeper.until(lambda: settled(one), "settled")
    finally:
        keeper.end()
    started = one.starts()
    assert set(started.values()) <= {1}, (point, how, started)
    assert all(len(pids) == 1 for pids in one.agents().values()), (point, how, one.agents())


def one_log(one: Fleet) -> bytes:
    return (one.folder / "controller.err").read_bytes()


def settled(one: Fleet) -> bool:
    ready = {name for name, state in one.states().items() if state == "ready"}
    return one.journal.open_actions() == [] and set(one.agents()) == ready and bool(ready)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["kill", "raise", "hang"])
@pytest.mark.parametrize("point", WANTED)
def test_real_processes_come_out_right_wherever_it_happens(
    make_fleet: MakeFleet, ssh_hosts: Lab, tmp_path: Path, point: str, how: str
) -> None:
    one = make_fleet(tmp_path)
    try:
        if point.startswith(SWITCHED):
            power = Power(one.folder, ssh_hosts(3))
            try:
                one.on_machines([host.entry(power=power.spec) for host in ssh_hosts.hosts])
                days_work(one, point, how)
            finally:
                power.close()
            power.never_twice()
        else:
            days_work(one, point, how)
    finally:
        one.close()


def test_a_failpoint_that_is_misspelt_is_refused_at_once() -> None:
    code = "import fleet_controller.failpoint"
    env = {**os.environ, "FLEETCTL_FAILPOINT": "machine.start.after=explode"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode != 0
    assert "is not NAME=kill, NAME=raise or NAME=hang" in done.stderr


def test_without_the_variable_nothing_is_wrapped() -> None:
    assert not hasattr(Journal.move, "__wrapped__")
