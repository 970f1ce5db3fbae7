"""The front door against direct connections and its peers: `python -m bench.balancer` (QUICK=1: a minute or two).

The proxy has core 0, load and hosts have core 1; every case runs against each subject in turn, several rounds, medians.
A peer that can't be had is a row with an error. `cpu_us` is the proxy's own CPU time per request: it says more than
req/s on a busy machine. `added_ms` at one connection is the p50 less that of a direct connection in the same round.
Writes bench/out/balancer.json, prints a table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.balancer import memory
from bench.balancer.processes import cpu_s, free_port, running
from bench.balancer.subjects import KEY, SUBJECTS, serving, version
from bench.balancer.wire_load import load

HERE = Path(__file__).parent
OUT = HERE.parent / "out" / "balancer.json"
# Connections and bytes of each request's body.
CASES = {"post-1k-c64": (64, 1024), "post-1k-c1": (1, 1024), "post-256k-c8": (8, 256 * 1024)}
UNITS = {"rps": "1/s", "p50_ms": "ms", "p99_ms": "ms", "added_ms": "ms", "cpu_us": "us/request"}
# These take milliseconds per request: one case and one round say enough.
SLOW = ("skyserve",)
IDLE_CONNECTIONS = 10_000
BODY_BYTES = 10**9

Seen = dict[tuple[str, str, str], list[float]]


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--wrk", help="path of wrk; else looked up, else bench/balancer/load.py")
    p.add_argument("--peers", default=",".join(SUBJECTS[1:]), help="which peers, comma-separated")
    args = p.parse_args()
    wrk = args.wrk or shutil.which("wrk")
    quick = os.environ.get("QUICK", "") not in ("", "0")
    subjects = ("fleetctl", *filter(None, args.peers.split(",")))
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        a, b = free_port(), free_port()
        stack.enter_context(running(1, [sys.executable, str(HERE / "origin.py"), str(a), str(b)], b))
        seen = measured(subjects, failures, a, b, folder, wrk, (1.0, 1) if quick else (4.0, 5))
        held = {} if "fleetctl" in failures else weighed(failures, a, b, folder, quick)
    rows = table(seen, held, failures)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    by = "wrk" if wrk else "bench/balancer/load.py"
    versions = {subject: version(subject) for subject in subjects}
    content = {"rows": rows, "load": by, "quick": quick, "versions": versions}
    OUT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    show(seen, held, failures, ("direct", *subjects), by)
    print(f"rows: {OUT}")
    return 1 if "fleetctl" in failures else 0


def measured(
    subjects: tuple[str, ...],
    failures: dict[str, str],
    a: int,
    b: int,
    folder: Path,
    wrk: str | None,
    effort: tuple[float, int],
) -> Seen:
    """Every figure of every round. `effort`: seconds and rounds."""
    seconds, rounds = effort
    seen: Seen = {}
    with contextlib.ExitStack() as stack:
        doors: dict[str, tuple[int, int | None]] = {"direct": (a, None)}
        for subject in subjects:
            try:
                doors[subject] = stack.enter_context(serving(subject, a, b, folder))
            except RuntimeError as error:
                failures[subject] = str(error)
        for round_ in range(rounds):
            for case, (connections, size) in CASES.items():
                direct = 0.0
                for subject, (port, pid) in doors.items():
                    if subject in SLOW and (round_ or case != "post-1k-c64"):
                        continue
                    before = cpu_s(pid) if pid else 0.0
                    got = load(wrk, port, connections, seconds, size, KEY, folder)
                    if got["errors"]:
                        failures[subject] = f"{case}: {got['errors']:.0f} requests failed"
                    for metric in ("rps", "p50_ms", "p99_ms"):
                        seen.setdefault((case, subject, metric), []).append(got[metric])
                    if pid is None:
                        direct = got["p50_ms"]
                        continue
                    spent = (cpu_s(pid) - before) / max(1.0, got["requests"]) * 1e6
                    seen.setdefault((case, subject, "cpu_us"), []).append(spent)
                    if connections == 1:
                        seen.setdefault((case, subject, "added_ms"), []).append(got["p50_ms"] - direct)
    return seen


def weighed(failures: dict[str, str], a: int, b: int, folder: Path, quick: bool) -> dict[str, float]:
    """Memory in MB: case -> figure."""
    size = BODY_BYTES // 10 if quick else BODY_BYTES
    held: dict[str, float] = {}
    try:
        held["idle-10k"] = memory.idle(IDLE_CONNECTIONS, a, b, folder)
        held["upload-1g"] = memory.growth(size, False, a, b, folder)
        held["download-1g"] = memory.growth(size, True, a, b, folder)
    except (RuntimeError, OSError) as error:
        failures["memory"] = str(error)
    return held


def table(seen: Seen, held: dict[str, float], failures: dict[str, str]) -> list[dict[str, Any]]:
    """One row per case, metric and peer; `ratio` is ours over theirs."""
    medians = {key: statistics.median(values) for key, values in seen.items()}
    rows: list[dict[str, Any]] = []
    for case in CASES:
        for metric, unit in UNITS.items():
            ours = medians.get((case, "fleetctl", metric))
            for peer in ("direct", *SUBJECTS[1:]):
                theirs = medians.get((case, peer, metric))
                error = failures.get("fleetctl") or failures.get(peer)
                if theirs is None and error is None:
                    continue
                row = {"case": case, "subject": "fleetctl", "metric": metric, "value": ours, "unit": unit}
                row |= {"peer": peer, "peer_value": theirs}
                row["ratio"] = ours / theirs if ours is not None and theirs else None
                rows.append(row | ({"error": error} if error else {}))
    for case, value in held.items():
        metric = "resident" if case.startswith("idle") else "growth"
        row = {"case": case, "subject": "fleetctl", "metric": metric, "value": value, "unit": "MB"}
        rows.append(row | {"peer": None, "ratio": None})
    return rows


def show(
    seen: Seen, held: dict[str, float], failures: dict[str, str], subjects: tuple[str, ...], by: str
) -> None:
    print(
        f"{'case':13} {'subject':9} {'req/s':>9} {'p50 ms':>8} {'p99 ms':>9} {'added ms':>9} {'CPU us/req':>10} "
        f"{'x fleetctl':>10}   (load: {by})"
    )
    for case in CASES:
        ours = statistics.median(seen.get((case, "fleetctl", "rps"), [0.0]))
        for subject in subjects:
            got = [seen.get((case, subject, metric)) for metric in UNITS]
            if got[0] is None:
                if subject not in SLOW or case == "post-1k-c64":
                    print(f"{case:13} {subject:9} {failures.get(subject, 'not run')}")
                continue
            rps = statistics.median(got[0])
            numbers = [
                f"{statistics.median(v):{w}}" if v else f"{'-':>{w.partition('.')[0]}}"
                for v, w in zip(got, ("9.0f", "8.2f", "9.2f", "9.3f", "10.1f"), strict=True)
            ]
            print(f"{case:13} {subject:9} {' '.join(numbers)} {ours / rps:10.2f}")
    for case, value in held.items():
        print(f"{case:13} fleetctl  {value:9.1f} MB{'' if case.startswith('idle') else ' more at most'}")
    for subject, why in failures.items():
        print(f"{subject}: {why}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as failed:
        sys.exit(f"the load generator failed ({failed.returncode}): {' '.join(failed.cmd)}\n{failed.stderr}")
