"""A fleet.yaml in a folder of its own, the CLI run in this process, and a controller that plays a part."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fleet_controller import spec
from fleet_controller.door.daemons import Process
from fleet_controller.journal import Journal
from fleet_controller.lifecycle import HostState
from fleet_controller.spec import template
from fleet_controller.statefolder import StateFolder
from fleetctl.__main__ import main

FLEET = """\
fleet: demo
hosts:
  - {name: gpu-a, address: local, zone: rack-1, price_per_hour: 2.10, labels: {gpu: h100}}
  - {name: gpu-b, address: local}
  - {name: gpu-c, address: local}
models:
  - {name: hello, source: models/hello, entrypoint: "model:Hello"}
pools:
  - name: default
    hosts: ["gpu-*"]
    models: [hello]
    scaling:
      min_servers: 1
      max_servers: 3
balancer: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}
controller: {interval: 200ms}
"""
INTERVAL_S = 0.2
BEAT_S = 0.1


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good fleet.yaml, which is also the current one."""
    for name, text in template.init_files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "fleet.yaml").write_text(FLEET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEETCTL_FILE", raising=False)
    return tmp_path


@pytest.fixture
def fleetctl(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """The program, run in this process: how it ends and what it prints."""

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        printed = capsys.readouterr()
        return Ran(int(ended.value.code or 0), printed.out, printed.err)

    return run


def pool_picture(**fields: Any) -> dict[str, Any]:
    return {
        "name": "default",
        "desired": 1,
        "ready": 0,
        "min_servers": 1,
        "max_servers": 3,
        "latency_ms": {"p50": 12.5, "p95": 80.0, "p99": 130.2},
        "rps": 41.0,
        "in_flight": 3,
        "queued": 0,
        "last_decision": None,
        "cooldown_remaining_s": 0.0,
        "paused": False,
        "goal": "up",
    } | fields


def host_picture(name: str, state: str = "off", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "pool": "default",
        "address": "local",
        "state": state,
        "since_s": 5.0,
        "reason": "",
        "models": [],
        "in_flight": 0,
        "queued": 0,
        "device_memory": {"used_bytes": None, "total_bytes": None},
        "p95_ms": None,
        "error": None,
        "cordoned": False,
        "retry_in_s": None,
    } | fields


@dataclass
class Stage:
    """The state store and two processes that pass for the daemons. A thread answers requests as a test says.

    `answers` maps a request's kind to what happens then; it returns what the operator is told, or raises Refused.
    """

    journal: Journal
    state: StateFolder
    daemons: dict[str, subprocess.Popen[bytes]]
    answers: dict[str, Callable[[dict[str, Any]], str]] = field(default_factory=dict)
    pools: list[dict[str, Any]] = field(default_factory=lambda: [pool_picture()])
    hosts: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {n: host_picture(n) for n in ("gpu-a", "gpu-b", "gpu-c")}
    )
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    _drawing: threading.Lock = field(default_factory=threading.Lock)

    class Refused(Exception):
        """The request is answered with a no."""

    def picture(self, at: float | None = None) -> dict[str, Any]:
        return {
            "schema": "fleetctl/status/v1",
            "fleet": "demo",
            "goal": self.journal.goal(),
            "at": time.time() if at is None else at,
            "endpoint": "http://127.0.0.1:8080",
            "controller": {"running": True, "leader": True, "last_tick_age_s": 0.0, "paused": False},
            "balancer": {"running": True, "error": None},
            "pools": self.pools,
            "hosts": list(self.hosts.values()),
        }

    def move(self, host: str, *states: str, reason: str = "desired 1 (min_servers)", **changes: Any) -> None:
        """Take a host through `states` in the store and in the picture."""
        self.journal.enlist([host], time.time())
        for state in states:
            last = state == states[-1]
            error = changes.get("error") if last else None
            self.journal.move(host, HostState(state), reason, time.time(), pool="default", error=error)
            self.hosts[host] = self.hosts[host] | {
                "state": state,
                "reason": reason,
                "error": error,
                "since_s": 0.0,
            }
        self.pools[0]["ready"] = sum(h["state"] == "ready" for h in self.hosts.values())
        self.draw()

    def bring_up(self, host: str) -> None:
        self.move(host, "booting", "reachable", "installing", "starting", "loading", "ready")

    def take_down(self, host: str) -> None:
        self.move(host, "draining", "stopping", "off", reason="the fleet goes down")

    def goes_up(self, *hosts: str, then: Callable[[], None] | None = None) -> None:
        """`up` is answered, and brings these hosts up."""

        def answer(_arguments: dict[str, Any]) -> str:
            self.journal.set_goal("up")
            for host in hosts:
                self.bring_up(host)
            if then is not None:
                then()
            return "demo goes up"

        self.answers["up"] = answer

    def play(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT_S):
            for request in self.journal.asked():
                self.asked.append((request.kind, request.args))
                if request.kind not in self.answers:
                    continue
                try:
                    message, ok = self.answers[request.kind](request.args), True
                except Stage.Refused as refusal:
                    message, ok = str(refusal), False
                self.journal.reply(request, time.time(), ok, message)
            self.draw()

    def draw(self) -> None:
        """Write the picture down as it is now: who moved a host finds that in it at once."""
        with self._drawing:
            self.journal.write_status(self.picture())


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    """The fleet's state store, made as a controller would."""
    state = StateFolder.of(spec.load(folder / "fleet.yaml"))
    state.ensure()
    opened = Journal.open(state.journal_url)
    yield opened
    opened.close()


@pytest.fixture
def stage(folder: Path, journal: Journal) -> Iterator[Stage]:
    """A store and daemons that live. Nothing is answered until the test says what."""
    state = StateFolder.of(spec.load(folder / "fleet.yaml"))
    idle = [sys.executable, "-c", "import time; time.sleep(600)"]
    daemons = {name: subprocess.Popen(idle) for name in ("controller", "balancer")}
    for name, child in daemons.items():
        process = Process.of(child.pid)
        assert process is not None
        (state.path / f"{name}.pid").write_text(json.dumps(asdict(process)))
        (state.path / f"{name}.log").write_text(f"{name} line 1\n{name} line 2\n")
    played = Stage(journal, state, daemons)
    ended = threading.Event()
    thread = threading.Thread(target=played.play, args=(ended,))
    thread.start()
    yield played
    ended.set()
    thread.join()
    for child in daemons.values():
        child.kill()
        child.wait()
