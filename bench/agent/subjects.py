"""How each server is started, on the one core that it has: fleetctl as it ships, the peers as their documents say.

Waiting times of batches (WAIT_MS and the peers' files) are plausible values, not tuned ones: try others before
a ratio is quoted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bench import peers
from bench.agent.shape import MAX_BATCH

ROOT = Path(__file__).parents[2]
REQUIREMENTS = {
    "mosec": ("mosec==0.9.8", "numpy", "orjson"),
    "litserve": ("litserve==0.2.19",),
    "bentoml": ("bentoml==1.4.39",),
    "ray-serve": ("ray[serve]==2.60.0",),
}
PEERS = ("fastapi-unbatched", *REQUIREMENTS)
START_S = 120.0
WAIT_MS = {"small": "2", "medium": "10", "long": "10"}


class Missing(Exception):
    """The subject can't be measured; str() says why."""


@dataclass(frozen=True, slots=True)
class Server:
    subject: str
    model: str
    port: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def serves(self) -> bool:
        """Raises Missing when it ended."""
        if self.process.poll() is not None:
            raise Missing(f"{self.subject} doesn't start: {self.last_words()}")
        paths = {
            "fleetctl": "/readyz",
            "fastapi-unbatched": "/readyz",
            "litserve": "/health",
            "bentoml": "/readyz",
        }
        url = f"http://127.0.0.1:{self.port}{paths.get(self.subject, '/-/healthz')}"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except urllib.error.HTTPError as error:
            return error.code == 404
        except OSError:
            return False

    def last_words(self) -> str:
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][-300:] if lines else "it said nothing"


def start(subject: str, model: str, forms: tuple[str, ...], core: int) -> Server:
    """Started, not yet serving. Raises Missing."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        command, more = _command(subject, model, forms, port)
    except RuntimeError as error:
        raise Missing(str(error)) from None
    log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more
    # A group of its own: several of the peers leave processes behind that only their group finds.
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command],
        cwd=ROOT,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return Server(subject, model, port, process, log)


def await_serving(server: Server) -> None:
    """Raises Missing when it ends, or doesn't serve in time."""
    until = time.monotonic() + START_S
    while not server.serves():
        if time.monotonic() > until:
            raise Missing(f"{server.subject} doesn't serve after {START_S:.0f} s: {server.last_words()}")
        time.sleep(0.1)


def stop(server: Server) -> None:
    """It and what it started, also where that has left its group (BentoML's workers do)."""
    below = _descendants(server.process.pid)
    for signum, patience_s in ((signal.SIGTERM, 8), (signal.SIGKILL, 8)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(patience_s)
            if signum == signal.SIGTERM and server.subject != "fleetctl":
                continue  # stragglers of its group
            break
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.log.close()


def _descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [found for child in map(int, children) for found in (child, *_descendants(child))]


@contextlib.contextmanager
def stopping(servers: dict[tuple[str, str], Server]) -> Iterator[None]:
    """All that are in `servers` by then are stopped at the end."""
    try:
        yield
    finally:
        for server in servers.values():
            stop(server)


def _command(subject: str, model: str, forms: tuple[str, ...], port: int) -> tuple[list[str], dict[str, str]]:
    """argv and what it needs in its environment. Raises RuntimeError where it can't be installed."""
    if subject == "fleetctl":
        folder = Path(__file__).parent
        served = f"{model}={folder}:models:{model.capitalize()}"
        flags = ["--listen", f"127.0.0.1:{port}", "--device", "cpu", "--threads", "1", "--model", served]
        flags += ["--max-batch-size", str(MAX_BATCH[model])]
        return [sys.executable, "-m", "fleet_agent", *flags], {}
    if subject == "fastapi-unbatched":
        return [sys.executable, "-m", "bench.agent.peer_fastapi", model, str(port)], {}
    python = str(peers.interpreter(subject, *REQUIREMENTS[subject], lent=("torch",)))
    if subject == "mosec":
        routes = " ".join(sorted({f"{model}/{'raw' if form == 'binary' else form}" for form in forms}))
        more = {"ROUTES": routes, "WAIT_MS": WAIT_MS[model]}
        return [python, "-m", "bench.agent.peer_mosec", "--address", "127.0.0.1", "--port", str(port)], more
    if subject == "bentoml":
        served = f"bench.agent.peer_bentoml:{model.capitalize()}"
        flags = ["--host", "127.0.0.1", "--port", str(port)]
        return [python, "-m", "bentoml", "serve", served, *flags], {"BENTOML_DO_NOT_TRACK": "True"}
    module = {"litserve": "peer_litserve", "ray-serve": "peer_rayserve"}[subject]
    return [python, "-m", f"bench.agent.{module}", model, str(port)], {"RAY_USAGE_STATS_ENABLED": "0"}
