"""Real agent processes, on ports that the system picks."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
START_S = 120.0


class Agent:
    """A running fleet-agent. Its folder holds config.json, run.json and log."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.run_file = folder / "run.json"
        path = folder / "config.json"
        path.write_text(json.dumps({"listen": "127.0.0.1:0", "device": "cpu", "threads": 1, **config}))
        self._log = (folder / "log").open("wb")
        command = [sys.executable, "-m", "fleet_agent", "--config", str(path)]
        # A group of its own, as the controller gives it, so that the test can look for and end all of it.
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._log, cwd=folder, start_new_session=True
        )
        self.url = self._first_line().removeprefix("listening on ").strip()
        token = Path(config["token_file"]).read_text() if config.get("token_file") else None
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.Client(base_url=self.url, timeout=START_S, headers=headers)

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready(self) -> Agent:
        self.until(lambda: self.http.get("/readyz").status_code == 200, "ready")
        return self

    def predict(self, model: str, instances: list[Any], **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(f"/v1/models/{model}:predict", json={"instances": instances}, headers=names)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.http.get("/status").json()
        return status

    def until(self, true: Callable[[], object], what: str, seconds: float = START_S) -> None:
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end or self.process.poll() is not None:
                raise AssertionError(f"not {what}; its log:\n{self.log()}")
            time.sleep(0.02)

    def group(self) -> list[int]:
        """The processes of the agent's group that are alive (no zombies)."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self.pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
        return found

    def worker(self) -> int:
        others = [pid for pid in self.group() if pid != self.pid]
        assert len(others) == 1, f"expected one worker, found {others}"
        return others[0]

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def close(self) -> None:
        self.http.close()
        for pid in self.group():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()

    def _first_line(self) -> str:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], START_S)
        line = self.process.stdout.readline().decode() if readable else ""
        if not line.startswith("listening on "):
            raise AssertionError(f"the agent doesn't listen; its log:\n{self.log()}")
        return line


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., dict[str, Any]]:
    """Makes the configuration of examples/tiny; options are its options, what ends in _ belongs to the model."""

    def make(name: str = "tiny", **settings: Any) -> dict[str, Any]:
        own = {key[:-1]: value for key, value in settings.items() if key.endswith("_")}
        options = {key: value for key, value in settings.items() if not key.endswith("_")}
        path = str(ROOT / "examples/tiny")
        return {"name": name, "path": path, "entrypoint": "model:Tiny", "options": options, **own}

    return make


@pytest.fixture(scope="session")
def written_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Makes a model folder with the given source as model.py; its class is Model."""

    def make(name: str, source: str, **settings: Any) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp(name)
        (folder / "model.py").write_text(source)
        return {"name": name, "path": str(folder), "entrypoint": "model:Model", **settings}

    return make


@pytest.fixture
def start_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Agent]]:
    """Starts agents; all are gone after the test."""
    yield from _starting(tmp_path_factory)


@pytest.fixture(scope="module")
def start_shared_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Agent]]:
    """The same, gone after the module."""
    yield from _starting(tmp_path_factory)


def _starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Agent]]:
    agents: list[Agent] = []

    def start(*models: dict[str, Any], **config: Any) -> Agent:
        folder = tmp_path_factory.mktemp("agent")
        agent = Agent(folder, {"models": list(models), "run_file": str(folder / "run.json"), **config})
        agents.append(agent)
        return agent

    yield start
    for agent in agents:
        agent.close()


@pytest.fixture
def start_balancer() -> Iterator[Callable[[str], str]]:
    """Starts a balancer in front of an agent; gives its address."""
    started: list[subprocess.Popen[bytes]] = []

    def start(backend: str) -> str:
        addresses = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--backends", backend]
        command = [sys.executable, "-m", "fleet_balancer", *addresses]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        started.append(process)
        assert process.stdout is not None
        return process.stdout.readline().decode().removeprefix("listening on ").strip()

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=20)
        assert process.stdout is not None
        process.stdout.close()
