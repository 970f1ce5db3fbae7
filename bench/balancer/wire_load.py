"""Closed-loop load over keep-alive connections: by wrk where it is installed, else by load.py."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from bench.balancer.processes import pinned

HERE = Path(__file__).parent
_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def load(
    wrk: str | None, port: int, connections: int, seconds: float, size: int, key: str, folder: Path
) -> dict[str, float]:
    """{requests, rps, p50_ms, p99_ms, errors} of POSTs with `size` bytes, each with a header of its own."""
    if wrk is None:
        words = [str(HERE / "load.py"), str(port), str(connections), str(seconds), str(size), key]
        done = subprocess.run(
            [*pinned(1), sys.executable, *words], capture_output=True, text=True, check=True
        )
        result: dict[str, float] = json.loads(done.stdout)
        return result
    script = folder / "post.lua"
    script.write_text(
        f'wrk.method = "POST"; wrk.body = string.rep("x", {size})\n'
        f'wrk.headers["Content-Type"] = "application/json"; wrk.headers["Authorization"] = "Bearer {key}"\n'
        "local n = 0\n"
        'request = function() n = n + 1; wrk.headers["X-Unique"] = n; '
        'return wrk.format(nil, "/v1/models/m:predict") end\n',
        encoding="utf-8",
    )
    command = [wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "-s", str(script)]
    done = subprocess.run(
        [*pinned(1), *command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True
    )
    return _read(done.stdout)


def _read(text: str) -> dict[str, float]:
    def number(pattern: str) -> float:
        found = re.search(pattern, text)
        return float(found[1]) if found else 0.0

    def percentile(which: str) -> float:
        found = re.search(rf"\s{which}%\s+([0-9.]+)(us|ms|s)", text)
        return float(found[1]) * _MS[found[2]] if found else float("nan")

    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return {
        "requests": number(r"(\d+) requests in"),
        "rps": number(r"Requests/sec:\s+([0-9.]+)"),
        "p50_ms": percentile("50"),
        "p99_ms": percentile("99"),
        "errors": number(r"Non-2xx or 3xx responses: (\d+)")
        + (sum(map(int, broken.groups())) if broken else 0),
    }
