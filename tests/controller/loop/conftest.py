"""A fleet of local hosts under the real loop, the real balancer and the real host code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fleet_controller import outside
from fleet_controller.clock import SteadyClock
from fleet_controller.door.daemons import Daemon, balancer
from fleet_controller.fleetfile import FleetFile
from fleet_controller.journal import Answer, Event, Journal
from fleet_controller.loop import Loop
from fleet_controller.pulse import Pulse
from fleet_controller.spec import load
from fleet_controller.statefolder import StateFolder

STANDIN = Path(__file__).parent / "standin" / "agent.py"
TINY = Path(__file__).parents[3] / "examples" / "tiny"


def _supervises(pid: int) -> bool:
    with suppress(OSError):
        return "supervise.py" in Path(f"/proc/{pid}/cmdline").read_text()
    return False


class Fleet:
    """One fleet in `folder`. `change` edits fleet.yaml; `control` runs the loop in this process, `daemon` as one."""

    def __init__(self, folder: Path, hosts: int, standin: bool, scaling: dict[str, Any]) -> None:
        self.folder = folder
        self.file = folder / "fleet.yaml"
        self.standin = folder / "standin"
        self.standin.mkdir()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[tuple[threading.Event, threading.Thread]] = []
        interpreter = self.standin / "python"
        interpreter.write_text(
            f'#!/bin/sh\nif [ "$1" = -m ]; then shift; exec {sys.executable} -I -S {STANDIN} {self.standin} "$@"; fi\n'
            f'exec {sys.executable} "$@"\n'
        )
        interpreter.chmod(0o755)
        one: dict[str, Any] = {"address": "local", "agent": {"drain_timeout": "5s", "start_timeout": "60s"}}
        if standin:
            one["install"] = {"interpreter": str(interpreter)}
        self.spec: dict[str, Any] = {
            "fleet": "loop",
            "hosts": [{"name": name, **one} for name in "abcdefghij"[:hosts]],
            "models": [{"name": "tiny", "source": str(TINY), "entrypoint": "model:Tiny"}],
            "pools": [{"name": "default", "hosts": list("abcdefghij"[:hosts]), "models": ["tiny"],
                       "scaling": {"min_servers": 1, "max_servers": hosts, **scaling}}],
            "balancer": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "controller": {"interval": "0.5s", "unreachable_after": "2s"},
        }  # fmt: skip
        self.change()
        self._first = load(self.file)
        self.state = StateFolder.of(self._first)
        self.state.ensure()
        self.journal = Journal.open(self.state.journal_url)

    def on_machines(self, entries: list[dict[str, Any]]) -> None:
        """Have it run on these entries of `hosts:` (and their files below our folder) instead of local hosts."""
        one = self.spec["hosts"][0]
        install = {**one.get("install", {}), "directory": str(self.folder / "hosts")}
        agent = {"port": 0, **one["agent"]}
        self.spec["hosts"] = [{**entry, "agent": agent, "install": install} for entry in entries]
        self.spec["pools"][0]["hosts"] = [entry["name"] for entry in entries]
        self.change()

    def change(self, edit: Callable[[dict[str, Any]], object] = lambda spec: None) -> None:
        """Edit fleet.yaml (JSON is YAML)."""
        edit(self.spec)
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(self.spec))
        fresh.replace(self.file)

    def behave(self, host: str, **how: Any) -> None:
        """How `host`'s stand-in goes on."""
        fresh = self.standin / f"{host}.new"
        fresh.write_text(json.dumps(how))
        fresh.replace(self.standin / f"{host}.json")

    # controllers

    def control(self) -> None:
        """Run the loop in a thread of this process."""
        file = FleetFile(self.file)
        executor = ThreadPoolExecutor(8)
        spec = file.load()
        clock = SteadyClock()
        world = outside.real(spec, self.journal, self.state, executor, clock, Pulse(clock))
        loop = Loop(file, spec, self.journal, world)
        stop = threading.Event()

        def run() -> None:
            loop.run(stop)
            loop.rest(5.0)
            executor.shutdown()

        thread = threading.Thread(target=run)
        self._threads.append((stop, thread))
        thread.start()

    def daemon(self, *options: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "fleet_controller", "--fleet", str(self.file), *options]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._processes.append(process)
        return process

    @property
    def balancer(self) -> Daemon:
        return balancer(self._first, self.state)

    # what is seen

    def states(self) -> dict[str, str]:
        return {name: str(record.state) for name, record in self.journal.hosts().items()}

    def count(self, state: str) -> int:
        return list(self.states().values()).count(state)

    def events(self, kind: str | None = None, host: str | None = None) -> list[Event]:
        return [e for e in self.journal.events() if kind in (None, e.kind) and host in (None, e.host)]

    def ask(self, kind: str, **args: Any) -> tuple[Answer, float]:
        """The answer, and the seconds until it came."""
        began = time.monotonic()
        key = self.journal.ask(kind, **args)
        self.until(lambda: self.answer(key).done, f"{kind} to be answered")
        return self.answer(key), time.monotonic() - began

    def answer(self, key: int) -> Answer:
        found = self.journal.answer(key)
        assert found is not None
        return found

    def agents(self) -> dict[str, list[int]]:
        """Main processes of agents by host, as the system sees them."""
        found: dict[str, list[int]] = {}
        for pid, owner in self._marked():
            with suppress(OSError):
                if os.getsid(pid) == pid and not _supervises(pid):
                    found.setdefault(owner.split("/")[1], []).append(pid)
        return found

    def supervisors(self) -> list[int]:
        """The programs that start agents again."""
        return [pid for pid, _ in self._marked() if _supervises(pid)]

    def starts(self) -> Counter[str]:
        """How often each action started an agent."""
        try:
            lines = (self.standin / "starts").read_text().splitlines()
        except OSError:
            return Counter()
        assert not [line for line in lines if line.startswith("DOUBLE")]
        return Counter(line.removeprefix("start ") for line in lines)

    def until(self, true: Callable[[], object], what: str = "", timeout_s: float = 80.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not true():
            if time.monotonic() > deadline:
                story = "\n".join(f"{e.at:.1f} {e.kind} {e.host} {e.reason} {e.data}" for e in self.events())
                raise AssertionError(
                    f"not in {timeout_s} s: {what}\n{self.states()} {self.agents()}\n{story}"
                )
            time.sleep(0.05)

    def _marked(self) -> list[tuple[int, str]]:
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                words = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            said = dict(word.split("=", 1) for word in words if word.startswith("FLEETCTL_"))
            if said.get("FLEETCTL_ROOT", "").startswith(str(self.folder) + "/"):
                found.append((int(folder.name), said.get("FLEETCTL_AGENT", "//")))
        return found

    # the end

    def rest(self) -> None:
        """End the controllers of `control`."""
        for stop, thread in self._threads:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()
        self._threads.clear()

    def close(self) -> None:
        self.rest()
        for process in self._processes:
            process.kill()
            process.communicate()
        self.journal.close()
        self.balancer.stop(0.5)
        for pid, _ in self._marked():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """fleet(hosts=3, standin=True, min_servers=2, ...): a fleet that is not running yet."""
    made: list[Fleet] = []

    def make(hosts: int = 3, standin: bool = True, **scaling: Any) -> Fleet:
        made.append(Fleet(tmp_path, hosts, standin, scaling))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def make_fleet() -> Callable[[Path], Fleet]:
    """make_fleet(folder): three stand-in hosts there; who makes it closes it."""
    return lambda folder: Fleet(folder, 3, True, {})
