"""Real processes for the balancer's tests: origins, balancers, and a client that frames HTTP by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class OriginProcess:
    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def mood(self, *lines: str) -> None:
        """How it answers from now on (see origin_process.py); without lines: well."""
        file = self.log.with_suffix(".mood")
        part = file.with_suffix(".part")
        part.write_text("\n".join(lines), encoding="utf-8")
        part.replace(file)

    def lines(self, word: str) -> list[str]:
        """Log lines of requests that are "begun", "done", or "hangup"."""
        return [x for x in self.log.read_text(encoding="utf-8").splitlines() if f" {word} " in x]


@dataclass
class BalancerProcess:
    process: subprocess.Popen[bytes]
    listen: str
    admin: str
    token: str | None = None
    ready: Path = Path()

    @property
    def pid(self) -> int:
        """The process that serves now: a hand-over changes it."""
        found: int = json.loads(self.ready.read_text(encoding="utf-8"))["pid"]
        return found

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    def ask(
        self, method: str, path: str, document: object = None, token: str | None = None
    ) -> tuple[int, bytes]:
        """A request to the admin address."""
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(f"http://{self.admin}{path}", data=data, method=method)
        if token := token or self.token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def status(self) -> dict[str, Any]:
        code, body = self.ask("GET", "/status")
        assert code == 200, body
        result: dict[str, Any] = json.loads(body)
        return result

    def backend(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(b for b in self.status()["backends"] if b["name"] == name)
        return found

    def put(self, *origins: OriginProcess | dict[str, Any], **pool: Any) -> None:
        """PUT /backends with one pool."""
        backends = [o if isinstance(o, dict) else {"name": o.name, "address": o.address} for o in origins]
        code, body = self.ask(
            "PUT", "/backends", {"pools": [{"name": "default", **pool}], "backends": backends}
        )
        assert code == 200, body

    def rss_bytes(self) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found
        return int(found[1]) * 1024


def eventually(check: Callable[[], object], within_s: float = 30.0) -> Any:
    """What `check` returns once it is true."""
    until = time.monotonic() + within_s
    while not (result := check()):
        assert time.monotonic() < until, f"not true within {within_s} s"
        time.sleep(0.02)
    return result


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpClient:
    """One keep-alive connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, port: int) -> HttpClient:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        lines = [f"{method} {path} HTTP/1.1", "host: test"]
        lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
        if body:
            lines.append(f"content-length: {len(body)}")
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        self.send(method, path, body, **headers)
        return await self.reply(method)

    async def reply(self, method: str = "GET") -> Reply:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        status = int(head[0].split(" ")[1])
        body = b""
        if status < 200:
            return await self.reply(method)
        if method == "HEAD" or status in (204, 304):
            pass
        elif "transfer-encoding" in headers:
            while size := int(await self.reader.readline(), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            while (line := await self.reader.readline()) != b"\r\n":
                name, _, value = line.decode("latin-1").partition(":")
                headers[name] = value.strip()
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            body = await self.reader.read()
        return Reply(status, headers, body)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass
class Tally:
    """What a load saw."""

    replies: list[Reply] = field(default_factory=list)
    broken: int = 0

    @property
    def failed(self) -> int:
        return self.broken + sum(r.status >= 500 for r in self.replies)


@contextlib.asynccontextmanager
async def posting(port: int, path: str, connections: int, pause_s: float = 0.0) -> AsyncIterator[Tally]:
    """POST all the time on `connections` connections, while the block runs; requests under way then finish.

    Each connection rests `pause_s` between two requests.
    """
    tally = Tally()
    stop = asyncio.Event()

    async def one() -> None:
        client = await HttpClient.open(port)
        while not stop.is_set():
            try:
                reply = await client.ask("POST", path, b"x" * 100)
                tally.replies.append(reply)
                if pause_s:
                    await asyncio.sleep(pause_s)
                if reply.headers.get("connection") == "close":
                    await client.close()
                    client = await HttpClient.open(port)
            except (ConnectionError, asyncio.IncompleteReadError):
                tally.broken += 1
                await client.close()
                client = await HttpClient.open(port)
        await client.close()

    tasks = [asyncio.create_task(one()) for _ in range(connections)]
    try:
        yield tally
    finally:
        stop.set()
        await asyncio.gather(*tasks)


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    return eventually


@pytest.fixture
def load() -> Callable[..., Any]:
    return posting


@pytest.fixture
def http() -> type[HttpClient]:
    return HttpClient


@contextlib.contextmanager
def origins(folder: Path) -> Iterator[Callable[..., OriginProcess]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, status: object = None, ready: int = 200, port: int = 0) -> OriginProcess:
        log = folder / f"{name}.log"
        log.touch()
        command = [sys.executable, str(Path(__file__).parent / "origin_process.py"), "--name", name]
        command += ["--log", str(log), "--ready", str(ready), "--port", str(port)]
        command += ["--mood", str(log.with_suffix(".mood"))]
        if status is not None:
            file = folder / f"{name}.json"
            file.write_text(json.dumps(status), encoding="utf-8")
            command += ["--status", str(file)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout
        return OriginProcess(name, process, int(process.stdout.readline()), log)

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def kill_successor(pid: int, ready: Path) -> None:
    """End the process that took over from `pid`, where there is one: nobody else would."""
    with contextlib.suppress(OSError, ValueError):
        serving = int(json.loads(ready.read_text(encoding="utf-8"))["pid"])
        words = Path(f"/proc/{serving}/cmdline").read_bytes().split(b"\0")
        if serving != pid and os.fsencode(ready) in words:
            os.kill(serving, signal.SIGKILL)


@contextlib.contextmanager
def balancers(folder: Path) -> Iterator[Callable[..., BalancerProcess]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, token: str | None = None) -> BalancerProcess:
        ready = folder / f"ready-{len(started)}.json"
        command = [sys.executable, "-m", "fleet_balancer"]
        if "--config" not in arguments:
            command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        command += ["--ready-file", str(ready), *arguments]
        if token is not None:
            file = folder / "token"
            file.write_text(token, encoding="utf-8")
            command += ["--token-file", str(file)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        started.append(process)
        eventually(lambda: ready.exists() or process.poll() is not None)
        assert process.poll() is None, f"the balancer ended with {process.returncode}"
        document = json.loads(ready.read_text(encoding="utf-8"))
        assert document["pid"] == process.pid
        return BalancerProcess(process, document["listen"], document["admin"], token, ready)

    yield start
    for number, process in enumerate(started):
        kill_successor(process.pid, folder / f"ready-{number}.json")
        process.kill()
        process.wait()


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Callable[..., OriginProcess]]:
    """Starts origin processes: origin("a", status=..., ready=503, port=...)."""
    with origins(tmp_path) as start:
        yield start


@pytest.fixture
def balancer(tmp_path: Path) -> Iterator[Callable[..., BalancerProcess]]:
    """Starts balancer processes: balancer("--backends", ..., token="secret")."""
    with balancers(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OriginProcess, BalancerProcess]]:
    """One origin behind one balancer, for tests that change neither."""
    folder = tmp_path_factory.mktemp("shared")
    with origins(folder) as origin, balancers(folder) as balancer:
        host = origin("a")
        front = balancer("--backends", host.address)
        eventually(lambda: front.backend(host.address)["healthy"])
        yield host, front


@pytest.fixture(scope="module")
def starters(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Callable[..., OriginProcess], Callable[..., BalancerProcess]]]:
    """What `origin` and `balancer` start, for processes that the tests of a module share."""
    folder = tmp_path_factory.mktemp("starters")
    with origins(folder) as origin, balancers(folder) as balancer:
        yield origin, balancer


@dataclass
class ScriptedHost:
    """A host in the test's own process: `script` answers every request but the probes."""

    port: int
    heads: list[str] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter, str], Awaitable[None]]


@contextlib.asynccontextmanager
async def scripted_host(script: Script) -> AsyncIterator[ScriptedHost]:
    """`script(reader, writer, head)` is called for each request; where it returns, the next one is read. `heads` are
    those of the requests, `ended` when (monotonic) connections that had one were found closed by the other side."""
    host = ScriptedHost(0)
    open_writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.add(writer)
        asked = False
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                if head.startswith(("GET /readyz ", "GET /status ")):
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                    continue
                asked = True
                host.heads.append(head)
                host.asked.set()
                await script(reader, writer, head)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            if asked:
                host.ended.append(time.monotonic())
                host.left.set()
        finally:
            open_writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    host.port = server.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        server.close()
        for writer in open_writers:
            writer.transport.abort()


@pytest.fixture
def scripted() -> Callable[[Script], contextlib.AbstractAsyncContextManager[ScriptedHost]]:
    return scripted_host


@pytest.fixture(scope="module")
def one_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BalancerProcess]:
    """One balancer for a module, whose tests each give it a list of their own."""
    with balancers(tmp_path_factory.mktemp("front")) as start:
        yield start()


@pytest.fixture
def front_of(one_front: BalancerProcess) -> Callable[..., Awaitable[BalancerProcess]]:
    """Puts the balancer before hosts, as a pool of its own, and waits until it takes all of them for healthy."""

    async def start(*hosts: ScriptedHost, **pool: Any) -> BalancerProcess:
        name = f"pool-{time.monotonic_ns()}"
        backends = [{"name": f"h{i}", "address": h.address, "pool": name} for i, h in enumerate(hosts)]
        await asyncio.to_thread(lambda: one_front.put(*backends, name=name, **pool))
        healthy = lambda: all(b["healthy"] for b in one_front.status()["backends"])  # noqa: E731
        await asyncio.to_thread(eventually, healthy)
        return one_front

    return start
