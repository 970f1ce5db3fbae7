"""A whole fleet under test: fleet.yaml in a folder, the real `fleetctl` on it, and clients in front of it."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from fleetctl.app import app

REPO = Path(__file__).resolve().parents[2]
FLEETCTL = [sys.executable, "-m", "fleetctl"]


@dataclass
class Sent:
    """One request of a load: seconds on the monotonic clock, and how it ended."""

    start: float
    end: float
    status: int | None
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 200

    @property
    def ms(self) -> float:
        return (self.end - self.start) * 1000


@dataclass
class Load:
    """What an open-loop client saw."""

    sent: list[Sent] = field(default_factory=list)

    @property
    def failed(self) -> list[Sent]:
        return [s for s in self.sent if not s.ok]

    def percentile(self, q: float) -> float:
        times = sorted(s.ms for s in self.sent if s.ok)
        return times[max(1, math.ceil(q * len(times))) - 1]


LOCAL = 'hosts: [{name: "h[1:3]", address: local}]'


class Client:
    """Keep-alive HTTP/1.1 without a library, so that the client's own work does not show in what it measures."""

    def __init__(self, endpoint: str, body: bytes) -> None:
        self._host, _, port = endpoint.removeprefix("http://").partition(":")
        self._port = int(port)
        head = f"POST /v1/models/tiny:predict HTTP/1.1\r\nhost: {self._host}\r\ncontent-length: {len(body)}\r\n\r\n"
        self._request = head.encode() + body
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self) -> Sent:
        start = time.monotonic()
        try:
            status, body = await self._exchange()
            return Sent(start, time.monotonic(), status, body.decode()[:200])
        except (OSError, EOFError, TimeoutError) as error:
            return Sent(start, time.monotonic(), None, repr(error))

    async def _exchange(self) -> tuple[int, bytes]:
        reader, writer = await self._connection()
        async with asyncio.timeout(60):
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head.split(b" ", 2)[1]), body

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """One that lies idle, or a new one. Those that the balancer has closed in the meantime are dropped."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


class Fleet:
    """One fleet.yaml and the commands on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "fleet.yaml"
        # What commands see; a test may add to it.
        self.environment = {**os.environ, "NO_COLOR": "1"}
        self.environment.pop("FLEETCTL_FILE", None)
        # A test that breaks its hosts says here how they are mended for the final `down`, or that they can't be.
        self.before_down: Callable[[], None] = lambda: None
        self.down_may_end_with = {0}

    def write(self, hosts: str, scaling: dict[str, Any], **more: Any) -> None:
        """fleet.yaml with these hosts, one pool and the tiny model; `more` replaces or adds blocks."""
        tiny: dict[str, Any] = {
            "name": "tiny",
            "source": str(REPO / "examples" / "tiny"),
            "entrypoint": "model:Tiny",
        }
        blocks: dict[str, Any] = {
            "fleet": "test",
            "models": [tiny | more.pop("model", {})],
            "pools": [{"name": "default", "hosts": ["h*"], "models": ["tiny"], "scaling": scaling}],
            "balancer": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "controller": {"interval": "1s", "unreachable_after": "8s"},
        }
        lines = [f"{key}: {json.dumps(value)}" for key, value in (blocks | more).items()]
        fresh = self.file.with_suffix(".new")
        fresh.write_text("\n".join([*lines, hosts, ""]))
        fresh.replace(self.file)

    def run(
        self, *args: str, timeout_s: float = 150, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`fleetctl ARGS`, whatever its exit status."""
        argv = [*FLEETCTL, "-f", str(self.file), *args]
        return subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=self.folder,
            env=self.environment,
            input=stdin,
        )

    def cli(self, *args: str, expect: int = 0, timeout_s: float = 150) -> str:
        """`fleetctl ARGS`, which has to end with `expect`; its stdout."""
        done = self.run(*args, timeout_s=timeout_s)
        said = f"fleetctl {' '.join(args)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == expect, f"{said}\n{self.log()}"
        return done.stdout

    def look(self, *args: str) -> str:
        """`fleetctl ARGS` of a command that only looks, run in this process; its stdout.

        A test looks again and again: a Python and its imports each time compute more than the fleet does meanwhile.
        """
        done = CliRunner().invoke(app, ["-f", str(self.file), *args])
        said = f"fleetctl {' '.join(args)} ended with {done.exit_code}\n{done.output}\n{done.exception!r}"
        assert done.exit_code == 0, f"{said}\n{self.log()}"
        return done.stdout

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.look("status", "-o", "json"))
        return found

    def pool(self) -> dict[str, Any]:
        found: dict[str, Any] = self.status()["pools"][0]
        return found

    def hosts(self) -> dict[str, dict[str, Any]]:
        return {h["name"]: h for h in self.status()["hosts"]}

    def in_state(self, state: str) -> list[str]:
        return [name for name, host in self.hosts().items() if host["state"] == state]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.look("events", "-n", "1000", "-o", "json").splitlines()]

    @property
    def endpoint(self) -> str:
        return str(self.status()["endpoint"])

    def wait(self, what: str, check: Callable[[], Any], timeout_s: float = 90, every_s: float = 0.2) -> None:
        """Poll until `check` is truthy; fails naming `what`, with the fleet's status, events and logs."""
        deadline = time.monotonic() + timeout_s
        while not check():
            if time.monotonic() > deadline:
                told = f"{self.status()}\n{self.events()[-10:]}\n{self.log()}"
                pytest.fail(f"not within {timeout_s:.0f} s: {what}\n{told}")
            time.sleep(every_s)

    def wait_ready(self, count: int, timeout_s: float = 60) -> None:
        """Until so many hosts are ready, no more and no fewer."""
        self.wait(f"{count} hosts ready", lambda: self.pool()["ready"] == count, timeout_s)

    def predict(self, instances: list[Any], timeout_s: float = 30) -> httpx.Response:
        url = f"{self.endpoint}/v1/models/tiny:predict"
        return httpx.post(url, json={"instances": instances}, timeout=timeout_s)

    @asynccontextmanager
    async def load(self, rate: float, body: dict[str, Any] | None = None) -> AsyncIterator[Load]:
        """Open-loop requests at `rate` per second until the block ends; the last answers are awaited."""
        load, stop = Load(), asyncio.Event()
        client = Client(self.endpoint, json.dumps(body or {"instances": [[1.0, 2.0, 3.0, 4.0]]}).encode())

        async def send() -> None:
            load.sent.append(await client.send())

        async def pace() -> None:
            async with asyncio.TaskGroup() as group:
                due = time.monotonic()
                while not stop.is_set():
                    group.create_task(send())
                    due += 1 / rate
                    await asyncio.sleep(max(0.0, due - time.monotonic()))

        pacing = asyncio.create_task(pace())
        try:
            yield load
        finally:
            stop.set()
            await pacing
            client.close()

    def log(self) -> str:
        """What the daemons and the local agents wrote."""
        logs = sorted(self.folder.rglob("*.log"))
        return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-8000:]}" for p in logs)


@pytest.fixture
def local_hosts() -> str:
    """`hosts:` of a fleet.yaml: three that run on this machine, for what is not about reaching a host."""
    return LOCAL


@pytest.fixture
def fleet(tmp_path: Path, ssh_hosts: Any) -> Iterator[Fleet]:
    """A fleet in a folder of its own; whatever it started is down again before the hosts of `ssh_hosts` go."""
    made = Fleet(tmp_path)
    yield made
    if made.file.exists():
        made.before_down()
        done = made.run("down", "--yes", "--timeout", "60s")
        if done.returncode not in made.down_may_end_with:
            pytest.fail(f"down: {done.returncode}\n{done.stdout}{done.stderr}\n{made.log()}")
