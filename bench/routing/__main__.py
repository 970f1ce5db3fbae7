"""Routing policies on a mixed fleet, and what a pick costs: `python -m bench.routing` (QUICK=1: a minute).

simulated: the real pool and policies under discrete events, four kinds of server, several seeds (simulation.py).
real: a balancer process and hosts of the same speeds (real.py). "round_robin blind" does not know what models need.
pick: microseconds at 100 and at 10,000 hosts (pick_cost.py). Writes bench/out/routing.json, prints the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, get_args

from bench.routing import pick_cost, real
from bench.routing.hosts import KINDS
from bench.routing.simulation import Outcome, simulate, together

from fleet_wire.balancer import Routing

OUT = Path(__file__).parents[1] / "out" / "routing.json"
# A session header is what consistent_hash is about, and there is none in this traffic.
POLICIES: tuple[Routing, ...] = tuple(r for r in get_args(Routing) if r != "consistent_hash")
# The default against which the others are measured, and the one against which all are.
DEFAULT: Routing = "least_connections"
BLIND = "round_robin blind"
PEER = "round_robin"
PARTS = ("simulated", "real", "pick")
UNITS = {"p50": "ms", "p99": "ms", "throughput": "req/s", "oom": "placements", "failed": "requests"}

Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", choices=PARTS, help="one of the three parts; the rows of the others stay as they are"
    )
    only = parser.parse_args().only
    quick = os.environ.get("QUICK", "") not in ("", "0")
    rows: list[Row] = []
    if only in (None, "simulated"):
        rows += simulated(quick)
    if only in (None, "real"):
        rows += really(quick)
    if only in (None, "pick"):
        costs = pick_cost.measure(
            (100, 10_000), quick=True, cases=("plain", "third") if quick else pick_cost.CASES
        )
        pick_cost.show(costs)
        rows += picks(costs)
    rows += [row for row in before() if only and not row["case"].startswith(only)]
    rows.sort(key=lambda row: [row["case"].startswith(part) for part in PARTS], reverse=True)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"rows": rows, "quick": quick}, indent=1) + "\n", encoding="utf-8")
    return 0


def before() -> list[Row]:
    """The rows of the last run."""
    try:
        rows: list[Row] = json.loads(OUT.read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError):
        return []
    return rows


def simulated(quick: bool) -> list[Row]:
    cells = [(kind, 0.7) for kind in KINDS]
    if not quick:
        cells += [(kind, load) for kind in ("serial", "batching") for load in (0.5, 0.85)]
    seconds, seeds = (20.0, range(2)) if quick else (40.0, range(6))
    rows = []
    for kind, load in sorted(cells):
        found = {
            str(routing): together([simulate(routing, kind, load, seconds, seed) for seed in seeds])
            for routing in POLICIES
        }
        found[BLIND] = together(
            [simulate("round_robin", kind, load, seconds, seed, needs=False) for seed in seeds]
        )
        rows += show(f"simulated-{kind}-{load:g}", found)
    return rows


def really(quick: bool) -> list[Row]:
    seconds, rounds = (12.0, 1) if quick else (20.0, 3)
    seen: dict[str, list[Outcome]] = {}
    with real.hosts() as ports:
        for seed in range(rounds):
            for routing in POLICIES:
                seen.setdefault(routing, []).append(real.run(routing, ports, 0.7, seconds, seed))
            blind = real.run("round_robin", ports, 0.7, seconds, seed, needs=False)
            seen.setdefault(BLIND, []).append(blind)
    return show("real-serial-0.7", {subject: together(runs) for subject, runs in seen.items()})


def show(case: str, found: dict[str, Outcome]) -> list[Row]:
    """Print one case's table; its rows, each against round robin, and the default against the best."""
    best = min(one.p99 for name, one in found.items() if name != BLIND)
    print(f"\n{case:24} {'p50 ms':>8} {'p99 ms':>9} {'req/s':>7} {'oom':>6} {'failed':>7} {'p99 / best':>10}")
    rows: list[Row] = []
    for name, one in found.items():
        print(
            f"{name:24} {one.p50:8.1f} {one.p99:9.1f} {one.throughput:7.0f} {one.oom:6} {one.failed:7} "
            f"{one.p99 / best:10.2f}"
        )
        for metric, unit in UNITS.items():
            value, peer = getattr(one, metric), getattr(found[PEER], metric)
            ratio = round(value / peer, 4) if peer else None
            rows.append(
                {"case": case, "subject": f"fleetctl {name}", "metric": metric, "value": round(value, 2)}
                | {"unit": unit, "peer": PEER, "ratio": ratio}
            )
    rows.append(
        {
            "case": case,
            "subject": f"fleetctl {DEFAULT}",
            "metric": "p99",
            "value": round(found[DEFAULT].p99, 2),
        }
        | {"unit": "ms", "peer": "best policy", "ratio": round(found[DEFAULT].p99 / best, 4)}
    )
    sys.stdout.flush()
    return rows


def picks(costs: list[dict[str, Any]]) -> list[Row]:
    """Rows whose peer is the same pick with 100 hosts: a ratio of 1 is flat."""
    few = {(c["case"], c["routing"]): c for c in costs if c["hosts"] == 100}
    rows = []
    for cost in costs:
        for metric in ("pick", "place", "request"):
            peer = few[cost["case"], cost["routing"]][metric]
            rows.append(
                {"case": f"pick-{cost['case']}-{cost['hosts']}", "subject": f"fleetctl {cost['routing']}"}
                | {"metric": metric, "value": round(cost[metric], 3), "unit": "us", "peer": "100 hosts"}
                | {"ratio": round(cost[metric] / peer, 3)}
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
