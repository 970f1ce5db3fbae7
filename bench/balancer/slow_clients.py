"""What slow clients cost the others: `python -m bench.balancer.slow_clients [--seconds 60]`.

slowhttptest (Debian) attacks in each of its modes, 1,000 connections at once, while paced requests of other clients go
on; their p99 is set against that of the same requests without an attack, measured before and after each mode. The
proxy has core 0, everything else core 1. Prints a table and writes bench/out/slow_clients.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.balancer.processes import free_port, pinned, resident_mb, running
from bench.balancer.subjects import KEY, serving

HERE = Path(__file__).parent
OUT = HERE.parent / "out" / "slow_clients.json"
MODES = {
    "headers": ["-H", "-i", "10", "-x", "24", "-t", "GET"],
    "body": ["-B", "-i", "10", "-s", "8192", "-x", "10", "-t", "POST"],
    "range": ["-R", "-a", "5", "-b", "3000", "-t", "HEAD"],
    "read": ["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3"],
}
RATE = 200.0
WORKERS = 16
REQUEST = (
    b"POST /v1/models/m:predict HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %b\r\n"
    b"Content-Length: 2\r\n\r\n{}"
)


async def paced(port: int, seconds: float) -> tuple[list[float], int]:
    """Latencies in ms of RATE requests a second, from when each was due; and how many failed."""
    due: asyncio.Queue[float | None] = asyncio.Queue()
    seen: list[float] = []
    failed = 0

    async def worker() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (at := await due.get()) is not None:
            try:
                writer.write(REQUEST % KEY.encode())
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
                await reader.readexactly(200)
                if not head.startswith(b"HTTP/1.1 200"):
                    raise ConnectionError(head[:40])
                seen.append((time.perf_counter() - at) * 1000)
            except (OSError, EOFError, TimeoutError):
                failed += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    tasks = [asyncio.create_task(worker()) for _ in range(WORKERS)]
    start = time.perf_counter()
    for n in range(int(seconds * RATE)):
        at = start + n / RATE
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        due.put_nowait(at)
    for _ in tasks:
        due.put_nowait(None)
    await asyncio.gather(*tasks)
    return seen, failed


@contextlib.contextmanager
def attack(mode: str, port: int, seconds: int, folder: Path) -> Iterator[None]:
    words = ["slowhttptest", "-c", "1000", "-r", "200", "-l", str(seconds), "-p", "5", *MODES[mode]]
    command = [*pinned(1), *words, "-u", f"http://127.0.0.1:{port}/v1/models/m:predict"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def p99(latencies: list[float]) -> float:
    return sorted(latencies)[int(len(latencies) * 0.99)]


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--seconds", type=int, default=60, help="of each mode")
    p.add_argument("--subject", default="fleetctl", help="or haproxy, nginx")
    args = p.parse_args()
    if shutil.which("slowhttptest") is None:
        sys.exit("slowhttptest is not installed (Debian: apt install slowhttptest)")
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {1})
    rows = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        a, b = free_port(), free_port()
        stack.enter_context(running(1, [sys.executable, str(HERE / "origin.py"), str(a), str(b)], b))
        port, pid = stack.enter_context(serving(args.subject, a, b, folder))
        asyncio.run(paced(port, 2.0))
        print(
            f"{'mode':8} {'calm p99 ms':>12} {'attacked p99 ms':>16} {'ratio':>6} {'failed':>6} {'RSS MB':>7}"
        )
        for mode in MODES:
            calm = asyncio.run(paced(port, args.seconds / 4))[0]
            with attack(mode, port, args.seconds, folder):
                time.sleep(2)  # until its connections are open
                under, failed = asyncio.run(paced(port, args.seconds - 4.0))
            memory = resident_mb(pid)
            calm_after = asyncio.run(paced(port, args.seconds / 4))[0]
            quiet = statistics.mean((p99(calm), p99(calm_after)))
            ratio = p99(under) / quiet
            print(
                f"{mode:8} {quiet:12.2f} {p99(under):16.2f} {ratio:6.2f} {failed:6} {memory:7.1f}", flush=True
            )
            row = {"case": f"slow-{mode}", "subject": args.subject, "metric": "p99", "value": p99(under)}
            rows.append(row | {"unit": "ms", "peer": "calm", "ratio": ratio, "failed": failed})
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
