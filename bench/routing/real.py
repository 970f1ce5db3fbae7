"""The mixed fleet for real: a balancer process, hosts that wait as long as they would compute, an open-loop client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop
from bench.routing.simulation import Outcome
from bench.routing.traffic import NEED, NEEDY, WARM_S, Request, requests

HERE = Path(__file__).parent


@contextlib.contextmanager
def hosts() -> Iterator[list[int]]:
    """The ports of the nine hosts."""
    process = subprocess.Popen([sys.executable, str(HERE / "origin.py")], stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None:
            raise RuntimeError("the hosts have no output")
        yield [int(port) for port in process.stdout.readline().split()]
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def balancer(routing: str, ports: list[int], *, needs: bool) -> Iterator[int]:
    """The port of a balancer that has taken in all hosts and knows their memory."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, "-m", "fleet_balancer", "--ready-file", str(ready)]
        process = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until = time.monotonic() + 20
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError("the balancer does not start")
                time.sleep(0.02)
            told = json.loads(ready.read_text(encoding="utf-8"))
            models = [
                {"name": name, "device_memory_bytes": NEED if needs and name in NEEDY else None}
                for name in ("small", *NEEDY)
            ]
            pool: dict[str, Any] = {"name": "default", "routing": routing, "models": models}
            # The hosts' out-of-memory answers are what is counted: nobody is to be ejected for them.
            pool["ejection"] = {"enabled": False}
            backends = [{"name": f"h{i}", "address": f"127.0.0.1:{port}"} for i, port in enumerate(ports)]
            _ask("PUT", f"{told['admin']}/backends", {"pools": [pool], "backends": backends})
            while True:
                status = _ask("GET", f"{told['admin']}/status", None)
                seen = [
                    b["healthy"] and (b["report_age_s"] is not None or not needs) for b in status["backends"]
                ]
                if len(seen) == len(ports) and all(seen):
                    break
                if time.monotonic() > until:
                    raise RuntimeError("the balancer does not take in the hosts")
                time.sleep(0.05)
            yield int(told["listen"].rpartition(":")[2])
        finally:
            process.terminate()
            process.wait()


def run(
    routing: str, ports: list[int], load: float, seconds: float, seed: int, *, needs: bool = True
) -> Outcome:
    """One run against a fresh balancer and hosts without models."""
    for port in ports:
        _ask("POST", f"127.0.0.1:{port}/reset", {})
    with balancer(routing, ports, needs=needs) as port:
        return uvloop.run(_drive(port, list(requests(load, seconds, seed))))


async def _drive(port: int, stream: list[Request]) -> Outcome:
    loop = asyncio.get_running_loop()
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    latencies: list[float] = []
    oom = failed = 0
    began = loop.time() + 0.1

    async def ask(request: Request) -> None:
        nonlocal oom, failed
        due = began + request.at
        try:
            reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"POST /v1/models/%b:predict HTTP/1.1\r\nhost: fleet\r\nx-size: %.6f\r\ncontent-length: 2\r\n\r\n{}"
                % (request.model.encode(), request.size)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            failed += 1
            return
        idle.append((reader, writer))
        status = int(head[9:12])
        if status != 200:
            oom += status == 500
            failed += 1
        elif request.at >= WARM_S:
            latencies.append((loop.time() - due) * 1000.0)

    tasks = []
    for request in stream:
        wait = began + request.at - loop.time()
        if wait > 0.0005:
            await asyncio.sleep(wait)
        tasks.append(loop.create_task(ask(request)))
    await asyncio.gather(*tasks)
    ended = loop.time() - began
    for _, writer in idle:
        writer.close()
    latencies.sort()
    return Outcome(latencies, ended - WARM_S, oom, failed)


def _ask(method: str, url: str, document: object) -> dict[str, Any]:
    data = None if document is None else json.dumps(document).encode()
    url = url if url.startswith("http") else f"http://{url}"
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=10) as reply:
        answer: dict[str, Any] = json.loads(reply.read() or b"{}")
        return answer
