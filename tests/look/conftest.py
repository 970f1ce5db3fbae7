"""A fleet.yaml over hosts of the lab, and the real `fleetctl` on it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fleet_lab.host import Host

FLEETCTL = [sys.executable, "-m", "fleetctl"]


class Desk:
    """Where an operator sits: fleet.yaml, and commands on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {k: v for k, v in os.environ.items() if k not in ("FLEETCTL_FILE", "NO_COLOR")}
        self._running: list[subprocess.Popen[str]] = []

    def write(self, entries: list[dict[str, Any]], **more: Any) -> None:
        """fleet.yaml with these hosts and one pool of them all; `more` adds or replaces blocks. JSON is YAML."""
        source = self.folder / "tiny"
        source.mkdir(exist_ok=True)
        (source / "model.py").write_text("class Tiny: ...\n")
        names = [entry["name"] for entry in entries]
        scaling = {"min_servers": 1, "max_servers": len(names)}
        blocks = {
            "fleet": "test",
            "hosts": entries,
            "models": [{"name": "tiny", "source": str(source), "entrypoint": "model:Tiny"}],
            "pools": [{"name": "default", "hosts": names, "models": ["tiny"], "scaling": scaling}],
        }
        (self.folder / "fleet.yaml").write_text(json.dumps(blocks | more, ensure_ascii=False))

    def run(
        self, *args: str, stdin: bytes = b"", timeout_s: float = 60, **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*FLEETCTL, *args],
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env=self.env | env,
            timeout=timeout_s,
        )

    def start(self, *args: str) -> Following:
        """`fleetctl ARGS` that goes on; ended after the test."""
        child = subprocess.Popen(
            [*FLEETCTL, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self.env,
        )
        self._running.append(child)
        return Following(child)

    def close(self) -> None:
        for child in self._running:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


class Following:
    """A command that goes on, and what it has said so far."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        try:
            for line in self.child.stdout:
                self.lines.append(line.rstrip("\n"))
        except ValueError:
            pass  # closed after the test

    def interrupt(self) -> int:
        self.child.send_signal(signal.SIGINT)
        code = self.child.wait(10)
        self._reader.join(5)
        return code


@pytest.fixture
def wait() -> Callable[..., None]:
    """`wait(what, check)`: poll until `check` is truthy, or fail naming `what`."""

    def until(what: str, check: Callable[[], Any], timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not check():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout_s:.0f} s: {what}")
            time.sleep(0.02)

    return until


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


@pytest.fixture
def black_hole() -> Iterator[Callable[..., dict[str, Any]]]:
    """`black_hole(like, name)`: an entry of `hosts:` for a machine that takes connections and never says a word."""
    with ExitStack() as stack:

        def make(like: Host, name: str) -> dict[str, Any]:
            silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
            entry = like.entry(name=name)
            entry["ssh"] = {**entry["ssh"], "port": silent.getsockname()[1], "connect_timeout": "3s"}  # type: ignore[dict-item]
            return entry | {"address": "127.0.0.1"}

        yield make
