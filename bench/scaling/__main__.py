"""make bench-scaling: fleetctl's default policy and its peers on every trace, at 60 s and 240 s start-up.

    python -m bench.scaling [--traces DIR] [--only TEXT] [--policies TEXT] [--jobs N] [--fresh]; QUICK=1: a minute

--policies fleetctl runs only ours and the oracle. Peers' runs whose trace, formula and simulation have not changed
are taken from the last time (bench/out/.scaling-kept.json); --fresh makes them again. Prints tables and writes
bench/out/scaling.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from bench.scaling.cells import STARTUPS_S, Load, loads
from bench.scaling.field import Outcome, host_capacity, run
from bench.scaling.kept import Kept
from bench.scaling.oracle import oracle
from bench.scaling.subjects import OWN, subjects, sweep
from bench.scaling.table import ASIDE, rows, text

HERE = Path(__file__).parent
OUT = HERE.parent / "out" / "scaling.json"
QUICK_SPAN_S = 5400.0
ORACLE = "oracle"
LOADS: dict[str, Load] = {}  # filled before the workers are forked: they share them


class Job(NamedTuple):
    """One policy on one cell."""

    trace: str
    startup_s: float
    subject: str
    setting: str
    rps: float


def work(job: Job) -> Outcome:
    load = LOADS[job.trace]
    if job.subject == ORACLE:
        report = oracle(load, job.startup_s, job.rps)
    else:
        made = {**subjects(), **sweep()}[job.subject, job.setting](load, job.startup_s, job.rps)
        report = run(load, job.startup_s, made, job.rps, initial=getattr(made, "hosts", None))
    return Outcome(
        job.trace, job.startup_s, job.subject, job.setting, report.within_target or 0.0, report.server_hours,
        report.quick_turns, report.peak_servers, report.direction_changes,
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--traces", type=Path, default=HERE / "traces", help="folder with CSVs and index.json"
    )
    parser.add_argument("--only", default="", help="traces whose name holds this")
    parser.add_argument("--policies", default="", help="policies whose name holds this (fleetctl always)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--fresh", action="store_true", help="run everything, also what is known")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    quick = os.environ.get("QUICK", "") not in ("", "0")
    seconds = QUICK_SPAN_S if quick else None
    try:
        LOADS.update((load.name, load) for load in loads(given.traces, seconds, given.only))
    except ValueError as error:
        print(f"bench: {given.traces}: {error}", file=sys.stderr)
        return 2
    if not LOADS:
        print(f"bench: {given.traces} has no trace (*.csv) whose name holds {given.only!r}", file=sys.stderr)
        return 2
    began, rps = time.monotonic(), host_capacity()
    jobs = _jobs(rps, given.policies.lower(), quick)
    kept = Kept(given.out.parent / ".scaling-kept.json")
    outcomes = _outcomes(jobs, given, seconds, kept)
    order = {job[:4]: place for place, job in enumerate(jobs)}
    outcomes.sort(key=lambda o: order[o.trace, o.startup_s, o.subject, o.setting])
    hours = {(o.trace, o.startup_s): o.host_hours for o in outcomes if o.subject == ORACLE}
    figures = [o for o in outcomes if o.subject != ORACLE]
    print(
        f"a host carries {rps:.1f} requests/s within the target; {len(jobs)} runs "
        f"in {time.monotonic() - began:.0f} s"
    )
    print(text(figures, hours))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"rows": rows(figures, hours)}, indent=1) + "\n")
    print(f"wrote {given.out}")
    return 0


def _jobs(rps: float, policies: str, quick: bool) -> list[Job]:
    def named(name: str) -> bool:
        return name == OWN or policies in name.lower()

    common = [(ORACLE, ""), *(key for key in subjects(quick) if named(key[0]))]
    found = []
    for trace in LOADS:
        more = [key for key in sweep() if named(key[0]) and key not in common] if trace == ASIDE else []
        for startup_s in STARTUPS_S[:1] if quick else STARTUPS_S:
            found += [Job(trace, startup_s, *key, rps) for key in (*common, *more)]
    return found


def _outcomes(jobs: list[Job], given: argparse.Namespace, seconds: float | None, kept: Kept) -> list[Outcome]:
    index = given.traces / "index.json"
    facts = json.loads(index.read_text()) if index.exists() else {}
    traces = {name: (given.traces / f"{name}.csv").read_bytes() for name in LOADS}
    keys = {
        job: kept.key(traces[job.trace], facts.get(job.trace), seconds, *job)
        for job in jobs
        if job.subject != OWN
    }
    known = {} if given.fresh else {job: found for job, key in keys.items() if (found := kept.get(key))}
    # the longest first: ours, then the oracle's several runs, then by the number of requests
    todo = sorted(
        (job for job in jobs if job not in known),
        key=lambda job: (job.subject != OWN, job.subject != ORACLE, -len(LOADS[job.trace].arrivals)),
    )
    outcomes, began = list(known.values()), time.monotonic()
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("fork")) as pool:
        running = {pool.submit(work, job): job for job in todo}
        for done, future in enumerate(as_completed(running), 1):
            outcomes.append(outcome := future.result())
            if running[future] in keys:
                kept.put(keys[running[future]], outcome)
                if done % 20 == 0:
                    kept.write()
            end = "" if sys.stderr.isatty() else "\n"
            if not end or done % 20 == 0:
                print(
                    f"\r{done}/{len(todo)} runs, {time.monotonic() - began:.0f} s ", end=end, file=sys.stderr
                )
    kept.write()
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
