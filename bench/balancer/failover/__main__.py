"""What failing hosts cost the clients of each front door: `python -m bench.balancer.failover` (QUICK=1: no peers).

Three hosts of 30 ms a request, 48 workers that POST. Writes bench/out/failover.json, prints a table; `--json` prints
the rows alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop
from bench.balancer.failover.scenarios import SCENARIOS, Row, Site, hosts_in
from bench.balancer.failover.subjects import SUBJECTS, serving

OUT = Path(__file__).parents[2] / "out" / "failover.json"


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    quick = os.environ.get("QUICK", "") not in ("", "0")
    p.add_argument("--subjects", default="fleetctl" if quick else ",".join(SUBJECTS), help="comma-separated")
    p.add_argument("--scenarios", default=",".join(SCENARIOS), help="comma-separated")
    p.add_argument("--short", action="store_true", help="less load before and after each fault")
    p.add_argument("--json", action="store_true", help="print the rows as JSON and write nothing")
    args = p.parse_args()
    unknown = set(args.scenarios.split(",")) - set(SCENARIOS) | set(args.subjects.split(",")) - set(SUBJECTS)
    if unknown:
        p.error(f"there is no {', '.join(sorted(unknown))}")
    rows: list[dict[str, Any]] = []
    for scenario in args.scenarios.split(","):
        for subject in args.subjects.split(","):
            row: dict[str, Any] = {"case": scenario, "subject": subject}
            try:
                row |= {
                    name: round(value, 3) for name, value in measure(scenario, subject, args.short).items()
                }
            except RuntimeError as error:
                row["error"] = str(error)
            rows.append(row)
            if not args.json:
                figures = "  ".join(
                    f"{k} {v:g}" if k != "error" else str(v) for k, v in list(row.items())[2:]
                )
                print(f"{scenario:10}{subject:15}{figures}", flush=True)
    if args.json:
        print(json.dumps(rows))
    else:
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 1 if any("error" in row for row in rows if row["subject"] == "fleetctl") else 0


def measure(scenario: str, subject: str, short: bool) -> Row:
    """One scenario against one front door, everything fresh. Raises RuntimeError where something does not start."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with hosts_in(folder) as hosts, serving(subject, [h.port for h in hosts], folder) as door:
            site = Site(hosts, door, 0.5, 1.2) if short else Site(hosts, door)

            async def run() -> Row:
                return await SCENARIOS[scenario](site)

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(run())


if __name__ == "__main__":
    sys.exit(main())
