"""fleet.yaml changes what it says of the balancer: what a running one reads again, and what waits."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from fleet_controller.clock import SteadyClock
from fleet_controller.door import config as doorconfig
from fleet_controller.door.daemons import Process
from fleet_controller.door.keeper import Doorkeeper
from fleet_controller.journal import Journal
from fleet_controller.spec import FleetSpec, load
from fleet_controller.statefolder import StateFolder
from fleet_wire.balancer import BackendList

TEXT = """\
fleet: demo
hosts: [{name: h1, address: local}]
models: [{name: tiny, source: tiny, entrypoint: "model:Tiny"}]
pools: [{name: one, hosts: [h1], models: [tiny]}]
"""
# A balancer to find and to signal: it writes a line for each SIGHUP.
STANDIN = """
import signal, sys
heard = open(sys.argv[1], "a", buffering=1)
signal.signal(signal.SIGHUP, lambda *_: heard.write("again\\n"))
print("up", flush=True)
while True:
    signal.pause()
"""


class Stage:
    """A doorkeeper of a balancer that runs."""

    def __init__(self, folder: Path) -> None:
        (folder / "tiny").mkdir()
        (folder / "tiny" / "model.py").write_text("class Tiny: ...\n")
        self.file = folder / "fleet.yaml"
        self.spec = self.write("")
        self.state = StateFolder.of(self.spec)
        self.state.ensure()
        self.journal = Journal.open(self.state.journal_url)
        self._heard = folder / "heard"
        argv = [sys.executable, "-S", "-c", STANDIN, str(self._heard)]
        self.balancer = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert self.balancer.stdout is not None
        self.balancer.stdout.readline()
        process = Process.of(self.balancer.pid)
        assert process is not None
        (self.state.path / "balancer.pid").write_text(json.dumps(asdict(process)))
        doorconfig.write(doorconfig.config(self.spec, self.state), self.state)
        self.keeper = Doorkeeper(self.spec, self.state, self.journal, SteadyClock())

    def write(self, more: str) -> FleetSpec:
        self.file.write_text(TEXT + more)
        return load(self.file)

    def change(self, more: str) -> None:
        """Another fleet.yaml, and a few ticks with it."""
        self.keeper.adopt(self.write(more))
        for _ in range(3):
            self.keeper.tend(1.0, 1e9)

    def heard(self, times: int) -> bool:
        """Whether the balancer has heard so many signals by now, and no more."""
        deadline = time.monotonic() + 10
        while (count := len(self._heard.read_text().splitlines())) < times and time.monotonic() < deadline:
            time.sleep(0.01)
        return count == times

    def said(self) -> list[str]:
        return [e.reason for e in self.journal.events() if e.kind == "balancer"]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.journal.close()
    made.balancer.kill()
    made.balancer.communicate()


def test_what_did_not_change_is_not_told(stage: Stage) -> None:
    stage.change("")
    assert stage.heard(0) and stage.said() == []


def test_a_change_is_read_once_and_said_once(stage: Stage) -> None:
    stage.change("balancer: {timeouts: {idle: 9s}, workers: 2}\n")
    assert stage.heard(1)
    assert stage.said() == ["the balancer reads its configuration again: workers, limits changed"]
    now = doorconfig.read(stage.state)
    assert now is not None and (now.workers, now.limits.idle_timeout_s) == (2, 9.0)


def test_what_a_running_balancer_can_not_take_up_waits_and_is_said_once(stage: Stage) -> None:
    stage.change('balancer: {listen: "127.0.0.1:9", engine: haproxy, workers: 2}\n')
    assert stage.heard(0)
    assert stage.said() == [
        "a change of balancer.listen and balancer.engine waits for the next start: `fleetctl down`, then `fleetctl up`"
    ]
    stage.change("balancer: {workers: 2}\n")  # changed back: the rest is followed
    assert stage.heard(1)


def test_a_configuration_that_was_lost_is_written_and_read_again(stage: Stage) -> None:
    doorconfig.config_file(stage.state).unlink()
    stage.change("")
    assert stage.heard(1)
    assert doorconfig.read(stage.state) == doorconfig.config(stage.spec, stage.state)


def test_who_asks_for_the_list_to_be_told_hears_when_the_balancer_is_silent(stage: Stage) -> None:
    nothing = BackendList(pools=[], backends=[])
    assert not stage.keeper.tell(nothing, None)  # nobody listens there
    assert "does not answer" in stage.said()[-1]
    stage.keeper.heard(None)
    assert not stage.keeper.tell(nothing, None)
    assert len(stage.said()) == 1
