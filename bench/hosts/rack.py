"""A rack of hosts on this machine: real sshd on loopback ports, the real control loop, agents that only wait.

An agent is the tests' stand-in, which "loads its model" for as long as it is told to. Everything else is what runs in
production: SSH, the keeper, install, start, the journal.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests" / "lab"))

from fleet_lab.blackhole import blackhole  # noqa: E402
from fleet_lab.lab import Lab  # noqa: E402

from fleet_controller import outside  # noqa: E402
from fleet_controller.clock import SteadyClock  # noqa: E402
from fleet_controller.door.daemons import balancer  # noqa: E402
from fleet_controller.fleetfile import FleetFile  # noqa: E402
from fleet_controller.journal import Journal  # noqa: E402
from fleet_controller.loop import Loop  # noqa: E402
from fleet_controller.pulse import Pulse  # noqa: E402
from fleet_controller.spec import load  # noqa: E402
from fleet_controller.statefolder import StateFolder  # noqa: E402

STANDIN = REPO / "tests" / "controller" / "loop" / "standin" / "agent.py"
# Bigger than what any run takes: a black hole is never given up meanwhile.
CONNECT_TIMEOUT = "120s"


@dataclass(frozen=True)
class Rise:
    """What one `up` took, in seconds. `own`: each host from its first step until it was ready."""

    took_s: float
    own_s: tuple[float, ...]
    controller_cpu_s: float

    @property
    def ratio(self) -> float:
        """`up` over its slowest host."""
        return self.took_s / max(self.own_s)


def rise(
    lab: Lab, folder: Path, load_s: float, dark: int = 0, parallel: int = 16, patience_s: float = 300.0
) -> Rise:
    """Bring all hosts of `lab` up, and meanwhile `dark` more that are black holes and come first by name.

    Raises TimeoutError.
    """
    with ExitStack() as stack:
        entries = [
            {**host.entry(), "agent": {"port": 0, "start_timeout": "10m"}, "install": _install(folder)}
            for host in lab.hosts
        ]
        for number in range(dark):
            port = stack.enter_context(blackhole())
            ssh = {**entries[0]["ssh"], "port": port, "connect_timeout": CONNECT_TIMEOUT}  # type: ignore[dict-item]
            entries.insert(number, {**entries[0], "name": f"dark{number}", "ssh": ssh})
        for host in lab.hosts:
            (folder / f"{host.name}.json").write_text(json.dumps({"load_s": load_s}))
        file = _fleet_file(folder, entries, parallel)
        journal = stack.enter_context(_controller(file))
        began, cpu = time.monotonic(), time.process_time()
        journal.ask("up")
        while True:
            ready = [one for one in journal.hosts().values() if str(one.state) == "ready"]
            if len(ready) == len(lab.hosts):
                break
            if time.monotonic() > began + patience_s:
                raise TimeoutError(
                    f"{len(ready)} of {len(lab.hosts)} hosts were ready after {patience_s:g} s"
                )
            time.sleep(0.1)
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        return Rise(took, tuple(one.startup_s or 0.0 for one in ready), cpu)


def _install(folder: Path) -> dict[str, str]:
    interpreter = folder / "python"
    interpreter.write_text(
        f'#!/bin/sh\nif [ "$1" = -m ]; then shift; exec {sys.executable} -I -S {STANDIN} {folder} "$@"; fi\n'
        f'exec {sys.executable} "$@"\n'
    )
    interpreter.chmod(0o755)
    return {"interpreter": str(interpreter), "directory": str(folder / "hosts")}


def _fleet_file(folder: Path, entries: list[dict[str, Any]], parallel: int) -> Path:
    model = {"name": "tiny", "source": str(REPO / "examples" / "tiny"), "entrypoint": "model:Tiny"}
    names = [entry["name"] for entry in entries]
    scaling = {"min_servers": len(names), "max_servers": len(names)}
    file = folder / "fleet.yaml"
    spec = {
        "fleet": "rack",
        "hosts": entries,
        "models": [model],
        "pools": [{"name": "default", "hosts": names, "models": ["tiny"], "scaling": scaling}],
        "balancer": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
        "controller": {"parallel": parallel, "interval": "2s"},
    }
    file.write_text(json.dumps(spec))  # JSON is YAML
    return file


@contextmanager
def _controller(path: Path) -> Iterator[Journal]:
    """The loop in a thread of this process."""
    spec = load(path)
    folder = StateFolder.of(spec)
    folder.ensure()
    journal = Journal.open(folder.journal_url)
    clock, stop, file = SteadyClock(), threading.Event(), FleetFile(path)
    with ThreadPoolExecutor(8) as executor:
        loop = Loop(
            file, file.load(), journal, outside.real(spec, journal, folder, executor, clock, Pulse(clock))
        )
        thread = threading.Thread(target=loop.run, args=(stop,), daemon=True)
        thread.start()
        try:
            yield journal
        finally:
            stop.set()
            thread.join(30)
            loop.rest(1.0)
            balancer(spec, folder).stop(0.5)
    journal.close()
