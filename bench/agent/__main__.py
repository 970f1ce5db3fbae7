"""`python -m bench.agent` from the repository's root; QUICK=1 for the form that takes under a minute.

Servers run on one core, the load on another (where there are two), torch with one thread, batches up to 32. Subject and
peers take turns in the same run, so that the ratios hold even where the machine is shared; each figure is the median of
the rounds. A peer that isn't there is a row with an error.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
QUICK = os.environ.get("QUICK", "") not in ("", "0")
ROUNDS, SECONDS = (1, 2.0) if QUICK else (3, 4.0)
UNITS = {"throughput": "req/s", "p50": "ms", "p99": "ms"}
PEERS = ("mosec", "litserve", "bentoml")

# name, model, form, connections, in the quick form
CASES = [
    ("small-json-c1", "small", "json", 1, True),
    ("small-json-c32", "small", "json", 32, True),
    ("small-json-c128", "small", "json", 128, False),
    ("small-binary-c32", "small", "binary", 32, True),
    ("small-binary-c128", "small", "binary", 128, False),
    ("medium-c32", "medium", "json", 32, True),
    ("medium-c128", "medium", "json", 128, False),
]


def cores() -> tuple[set[int], set[int]]:
    """For the servers and for the load."""
    usable = sorted(os.sched_getaffinity(0))
    return ({usable[0]}, {usable[1]}) if len(usable) > 1 else ({usable[0]}, {usable[0]})


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def output(on: set[int], *arguments: str) -> Any:
    """What a module of the benchmark printed, run on those cores. Raises RuntimeError with its last words."""
    ran = subprocess.run(
        ["taskset", "-c", ",".join(map(str, on)), *command(*arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError((ran.stderr.strip().splitlines() or ["no reason given"])[-1])
    return json.loads(ran.stdout)


@contextmanager
def server(on: set[int], port: int, *arguments: str) -> Iterator[None]:
    """A server on those cores, ready, until the end of the block."""
    pinned = ["taskset", "-c", ",".join(map(str, on)), *command(*arguments)]
    with subprocess.Popen(pinned, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            end = time.monotonic() + 60
            while not ready(port):
                if process.poll() is not None or time.monotonic() > end:
                    process.kill()
                    raise RuntimeError(
                        f"{arguments[0]} doesn't start: {process.stderr.read().decode()[-300:]}"
                    )
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(20)


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def median(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {metric: statistics.median(r[metric] for r in rounds) for metric in UNITS}


def row(case: str, metric: str, value: float, peer: str, **rest: Any) -> dict[str, Any]:
    return {
        "case": case,
        "subject": "fleetctl",
        "metric": metric,
        "value": round(value, 3),
        "unit": UNITS[metric],
        "peer": peer,
        **rest,
    }


def measure() -> Iterator[dict[str, Any]]:
    servers, loader = cores()
    cases = [case for case in CASES if case[4] or not QUICK]
    bare = output(servers, "bench.agent.bare", "0.5" if QUICK else "2")
    ours, theirs = free_port(), free_port()
    folder = Path(__file__).parent
    agent = ["fleet_agent", "--listen", f"127.0.0.1:{ours}", "--device", "cpu", "--threads", "1"]
    for name in ("small", "medium"):
        agent += ["--model", f"{name}={folder}:models:{name.capitalize()}"]
    taken: dict[tuple[str, str], list[dict[str, float]]] = {}
    with server(servers, ours, *agent), server(servers, theirs, "bench.agent.peer_fastapi", str(theirs)):
        for _ in range(ROUNDS):
            for case, model, form, connections, _quick in cases:
                for subject, port in (("fleetctl", ours), ("fastapi-unbatched", theirs)):
                    if subject == "fastapi-unbatched" and form != "json":
                        continue
                    arguments = [str(port), model, form, str(connections), str(SECONDS)]
                    result = output(loader, "bench.agent.load", *arguments)
                    taken.setdefault((case, subject), []).append(result)
    for case, model, form, connections, _quick in cases:
        mine = median(taken[case, "fleetctl"])
        best = max(bare[model].values())
        yield row(
            case,
            "throughput",
            mine["throughput"],
            "bare-torch",
            peer_value=round(best, 1),
            ratio=round(mine["throughput"] / best, 3),
        )
        if connections == 1:
            alone = 1000 / bare[model]["1"]
            yield row(
                case,
                "p50",
                mine["p50"],
                "bare-torch",
                peer_value=round(alone, 3),
                ratio=round(mine["p50"] / alone, 3),
            )
        if form == "json":
            other = median(taken[case, "fastapi-unbatched"])
            for metric in UNITS:
                rest = {
                    "peer_value": round(other[metric], 3),
                    "ratio": round(mine[metric] / other[metric], 3),
                }
                yield row(case, metric, mine[metric], "fastapi-unbatched", **rest)
        for peer in PEERS:
            error = f"{peer} is not measured: this benchmark has no driver for it yet"
            yield row(case, "throughput", mine["throughput"], peer, peer_value=None, ratio=None, error=error)


def main() -> int:
    rows = list(measure())
    print(f"{'case':<18} {'metric':<11} {'fleetctl':>10} {'':<6} {'peer':<18} {'its value':>10} {'ratio':>7}")
    for entry in rows:
        if "error" in entry:
            continue
        left = f"{entry['case']:<18} {entry['metric']:<11} {entry['value']:>10.2f} {entry['unit']:<6}"
        print(f"{left} {entry['peer']:<18} {entry['peer_value']:>10.2f} {entry['ratio']:>7.2f}")
    for error in sorted({entry["error"] for entry in rows if "error" in entry}):
        print(error)
    out = ROOT / "bench/out/agent.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"quick": QUICK, "rows": rows}, indent=1) + "\n")
    print(f"written to {out.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
