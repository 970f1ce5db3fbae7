"""make bench-scaling: fleetctl's default policy and its peers on every trace, at 60 s and 240 s start-up.

    python -m bench.scaling [--traces DIR] [--only TEXT] [--policies TEXT] [--jobs N]; QUICK=1: a minute

Prints one table and writes bench/out/scaling.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path

from bench.scaling.cells import STARTUPS_S, Load, loads
from bench.scaling.field import Outcome, host_capacity, run
from bench.scaling.oracle import oracle
from bench.scaling.subjects import OWN, subjects
from bench.scaling.table import rows, text

HERE = Path(__file__).parent
OUT = HERE.parent / "out" / "scaling.json"
QUICK_SPAN_S = 5400.0
ORACLE = "oracle"


@cache
def _loads(folder: Path, seconds: float | None) -> dict[str, Load]:
    return {load.name: load for load in loads(folder, seconds)}


def work(
    folder: Path, seconds: float | None, trace: str, startup_s: float, subject: str, setting: str, rps: float
) -> Outcome:
    """One policy on one cell, in a process of its own."""
    load = _loads(folder, seconds)[trace]
    if subject == ORACLE:
        report = oracle(load, startup_s, rps)
    else:
        policy = subjects()[subject, setting](load, startup_s, rps)
        initial = getattr(policy, "hosts", None)
        report = run(load, startup_s, policy, rps, own=subject == OWN, initial=initial)
    return Outcome(
        trace, startup_s, subject, setting, report.within_target or 0.0, report.server_hours, report.quick_turns,
        report.peak_servers,
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument(
        "--traces", type=Path, default=HERE / "traces", help="folder with CSVs and index.json"
    )
    parser.add_argument("--only", default="", help="traces whose name holds this")
    parser.add_argument("--policies", default="", help="policies whose name holds this (fleetctl always)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    quick = os.environ.get("QUICK", "") not in ("", "0")
    seconds = QUICK_SPAN_S if quick else None
    try:
        found = [load for load in loads(given.traces, seconds) if given.only in load.name]
    except ValueError as error:
        print(f"bench: {given.traces}: {error}", file=sys.stderr)
        return 2
    if not found:
        print(f"bench: {given.traces} has no trace (*.csv) whose name holds {given.only!r}", file=sys.stderr)
        return 2
    began, rps = time.monotonic(), host_capacity()
    names = [n for n in subjects(quick) if n[0] == OWN or given.policies.lower() in n[0].lower()]
    startups = STARTUPS_S[:1] if quick else STARTUPS_S
    jobs = [(load.name, s, *n) for load in found for s in startups for n in [(ORACLE, ""), *names]]
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(given.jobs) as pool:
        running = [pool.submit(work, given.traces, seconds, t, s, n, x, rps) for t, s, n, x in jobs]
        for done, future in enumerate(as_completed(running), 1):
            outcomes.append(future.result())
            if sys.stderr.isatty():
                print(
                    f"\r{done}/{len(jobs)} runs, {time.monotonic() - began:.0f} s ", end="", file=sys.stderr
                )
    hours = {(o.trace, o.startup_s): o.host_hours for o in outcomes if o.subject == ORACLE}
    order = {job: place for place, job in enumerate(jobs)}
    figures = [o for o in outcomes if o.subject != ORACLE]
    figures.sort(key=lambda o: order[o.trace, o.startup_s, o.subject, o.setting])
    print(
        f"a host carries {rps:.1f} requests/s within the target; {len(jobs)} runs in {time.monotonic() - began:.0f} s"
    )
    print(text(figures, hours))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"rows": rows(figures, hours)}, indent=1) + "\n")
    print(f"wrote {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
