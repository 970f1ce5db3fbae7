"""Whoever brings a release to a host is killed at each of its steps in turn; the next try completes every time.

A step is a command that is run on the host or a file that is sent there: all of them go through two methods of the
transport. A process of its own installs and starts, and kills itself at its k-th step; k goes up until it gets through.
What is whole on the host is judged here by the hashes of the release, not by what the host says of itself.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import paramiko
import pytest
from fleet_lab.host import Host

from fleet_controller.hosts.command import Command
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.install.weights import WeightsFile
from fleet_controller.hosts.machine import Machine
from fleet_controller.hosts.machines import Machines
from fleet_controller.hosts.ssh.transport import SshTransport
from fleet_controller.hosts.transport import Result
from fleet_controller.spec import FleetSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FleetOf = Callable[..., FleetSpec]
SIZE = 300_000
# The worst moments are tried in CI, all of them by make test-failpoints.
BEFORE, AMID, HEARD = (pytest.param(moment, marks=pytest.mark.long) for moment in ("before", "amid", "heard"))
PATIENCE_S = 30.0
# All that an installation does on a host without an environment of its own, in the order of its first time.
STEPS = ["prepare", "folders", "put", "sha256sum", "unpack", "verify", "settle", "start"]


class Doomed:
    """The process that is killed: at its `number`-th step among those `of` these names (none: any), at a moment.

    "before": nothing of the step is done. "amid": the command was sent and the host is left alone with it, or half of
    the file is on its way. "blackout": the same, then the host dies too. "heard": the host just said its first word.
    """

    def __init__(self, number: int, moment: str, of: frozenset[str], tell: Connection) -> None:
        self._number = number
        self._moment = moment
        self._of = of
        self._tell = tell
        self._steps = count(1)
        self._errand = ""

    def _die(self, name: str) -> NoReturn:
        self._tell.send(name)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")

    def _is_next(self, name: str) -> bool:
        if (self._of and name not in self._of) or next(self._steps) != self._number:
            return False
        if self._moment == "before":
            self._die(name)
        return True

    def arm(self) -> None:
        """Wrap what everything for a host goes through; only ever in a process of its own."""
        ask, execute, put = Machine._ask, SshTransport._execute, SshTransport.put

        def asked(machine: Machine, errand: str, **args: Any) -> dict[str, Any]:
            self._errand = errand
            try:
                return ask(machine, errand, **args)
            finally:
                self._errand = ""

        def executed(transport: SshTransport, command: Command, hear: Any = None, err: Any = None) -> Result:
            name = self._errand or command.argv[0]
            if not self._is_next(name):
                return execute(transport, command, hear, err)
            if self._moment == "heard":
                return execute(transport, command, lambda data: self._die(name), err)
            self._die_once_sent(name, bool(command.stdin))
            return execute(transport, command, hear, err)

        def sent(
            transport: SshTransport, data: Any, path: str, mode: int, meter: Any = None, **how: Any
        ) -> int:
            if not self._is_next("put"):
                return put(transport, data, path, mode, meter, **how)

            def half(there: int, size: int) -> None:
                if 2 * there >= size:
                    self._die("put")

            return put(transport, data, path, mode, half, **how)

        Machine._ask = asked  # type: ignore[method-assign, assignment]
        SshTransport._execute = executed  # type: ignore[method-assign]
        SshTransport.put = sent  # type: ignore[method-assign, assignment]

    def _die_once_sent(self, name: str, has_input: bool) -> None:
        """A command is with the host once its input has ended, or, without any, once it was asked for."""
        last = "shutdown_write" if has_input else "exec_command"
        done = getattr(paramiko.Channel, last)

        def then_die(channel: paramiko.Channel, *args: Any) -> None:
            done(channel, *args)
            self._die(name)

        setattr(paramiko.Channel, last, then_die)


def bring_up(spec: FleetSpec, state: Path, release: Release, doom: Doomed) -> None:
    doom.arm()
    with Machines(spec, state) as machines:
        machine = machines.machine("h1")
        machine.install(release)
        machine.start(release, spec.models, "a1", "token")


class Site:
    """One host, what is to be brought there, and what is found of it there."""

    def __init__(self, host: Host, spec: FleetSpec, state: Path, release: Release) -> None:
        self._host = host
        self._spec = spec
        self._state = state
        self._release = release
        self._place = host.home / ".fleetctl"

    def interrupted(self, moment: str, *of: str) -> Iterator[str]:
        """For each of the steps its name, after a process was killed there; all is as at first before the next."""
        fork = multiprocessing.get_context("fork")
        for number in count(1):
            shutil.rmtree(self._place, ignore_errors=True)
            hears, tells = fork.Pipe(duplex=False)
            doom = Doomed(number, moment, frozenset(of), tells)
            child = fork.Process(target=bring_up, args=(self._spec, self._state, self._release, doom))
            child.start()
            tells.close()
            child.join(90)
            assert child.exitcode in (0, -signal.SIGKILL), f"it ended with {child.exitcode}"
            if child.exitcode == 0:
                with Machines(self._spec, self._state) as machines:
                    self._stop(machines.machine("h1"))
                return
            if moment == "blackout":
                self._host.kill()
                self._host.start()
            yield hears.recv()

    def completes(self) -> bool:
        """What was left is not started unless it is whole, and the next try completes it; whether it was whole.

        By a process that knows nothing of the one that was killed.
        """
        with Machines(self._spec, self._state) as machines:
            machine = machines.machine("h1")
            whole = self._starts_nothing_half(machine)
            machine.install(self._release)
            self.is_whole()
            assert list(self._place.rglob(".*.part")) == [], "what was half sent was gone on with"
            assert machine.install(self._release).sent_bytes == 0
            run = machine.start(self._release, self._spec.models, "a1", "token")
            assert [one.pid for one in self._host.agents()] == [self._host.outer_pid(run.pid)]
            assert run.release == self._release.key
            self._stop(machine)
        return whole

    def _starts_nothing_half(self, machine: Machine) -> bool:
        """Have it started as it was left: refused, or all of it is whole."""
        try:
            machine.start(self._release, self._spec.models, "a1", "token")
        except HostFailure as failure:
            assert failure.kind == "release", failure
            assert self._host.agents() == []
            return False
        self.is_whole()
        return True

    def _stop(self, machine: Machine) -> None:
        machine.stop(5)
        assert self._host.agents() == []
        until = time.monotonic() + PATIENCE_S
        while left := self._host.left():  # what was left alone with its errand, for one
            assert time.monotonic() < until, left
            time.sleep(0.02)

    def is_whole(self) -> None:
        """Each file is what was packed here, by its hash; so are the weights, and the environment is complete."""
        base = self._place / "test" / "h1"
        there = base / "releases" / self._release.key
        for file in self._release.files:
            assert _sha256(there / file.path) == file.sha256, file.path
        for weights in self._release.weights:
            assert _sha256(there / weights.path) == weights.sha256, weights.path
        if self._release.requirements:
            name = json.loads((there / "needs.json").read_text())["environment"]
            environment = base / "environments" / name
            assert json.loads((environment / "environment.json").read_text())["complete"] is True
            [module] = environment.glob("lib/python*/site-packages/fleetprobe/__init__.py")
            assert 'VERSION = "1"' in module.read_text()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def heavy(stub_release: Release, tmp_path: Path) -> Release:
    """The stub with weights."""
    file = tmp_path / "weights.bin"
    file.write_bytes(os.urandom(SIZE))
    weights = WeightsFile("models/tiny/weights.bin", _sha256(file), file=file)
    return replace(stub_release, weights=(weights,))


@pytest.mark.parametrize("moment", [BEFORE, AMID, "blackout"])
def test_killed_at_each_step_the_next_try_completes(
    host: Host, fleet_of: FleetOf, state: Path, heavy: Release, moment: str
) -> None:
    made = {**host.entry(), "install": {"interpreter": os.path.realpath("/proc/self/exe")}}
    site = Site(host, fleet_of([made]), state, heavy)
    steps, started = [], []
    for step in site.interrupted(moment):
        steps.append(step)
        if site.completes():
            started.append(step)
    assert list(dict.fromkeys(steps)) == STEPS
    assert steps.count("put") == 2, "the release and its weights"
    assert "start" in started, "what was whole is started as it is"
    assert not {"prepare", "folders", "put"} & set(started)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("moment", ["amid", HEARD])
def test_killed_while_the_environment_is_made_the_next_try_completes(
    host: Host,
    fleet_of: FleetOf,
    state: Path,
    heavy: Release,
    index: Path,
    make_wheel: Callable[..., Path],
    moment: str,
) -> None:
    make_wheel(index, "fleetprobe", filler=100_000)
    install = {"python": sys.executable, "pip_args": ["--no-index", "--find-links", str(index)]}
    release = replace(heavy, requirements=("fleetprobe==1",))
    site = Site(host, fleet_of([{**host.entry(), "install": install}]), state, release)
    steps = []
    for step in site.interrupted(moment, "environment"):
        steps.append(step)
        assert not site.completes(), "it had nothing to run in"
    assert steps == ["environment"]
