"""How long `up` takes on many SSH hosts, against the time that its slowest host needs, with and without dark ones.

    python -m bench.hosts [--hosts 50] [--dark 10] [--load 40]

All hosts are this machine, so what they do themselves (half a second of processor each) is done on its few cores too:
--load is the part of a host's own time that is waiting, as it is on real machines.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from bench.hosts.rack import Rise, rise
from fleet_lab.lab import Lab

OUT = Path(__file__).parents[1] / "out" / "hosts.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.hosts", description=__doc__)
    quick = bool(os.environ.get("QUICK"))
    parser.add_argument("--hosts", type=int, default=20 if quick else 50)
    parser.add_argument("--dark", type=int, default=4 if quick else 10)
    parser.add_argument("--load", type=float, default=10.0 if quick else 40.0, metavar="SECONDS")
    asked = parser.parse_args()
    rows = []
    for case, hosts, dark in (
        (f"up-{asked.hosts}", asked.hosts, 0),
        (f"up-{asked.hosts - asked.dark}", asked.hosts - asked.dark, 0),
        (f"up-{asked.hosts - asked.dark}-and-{asked.dark}-dark", asked.hosts - asked.dark, asked.dark),
    ):
        one = measure(hosts, asked.load, dark)
        rows.append(_row(case, "up", one.took_s, "slowest host", one.ratio))
        print(f"{case:24} up {one.took_s:6.1f} s   slowest host {max(one.own_s):6.1f} s   ratio {one.ratio:.2f}"
              f"   controller {one.controller_cpu_s:.1f} s of processor")  # fmt: skip
    slowed = rows[2]["value"] / rows[1]["value"]
    rows.append(_row("dark", "slowed", slowed, "no host dark", slowed))
    print(f"{asked.dark} dark hosts slow the other {asked.hosts - asked.dark} by {100 * (slowed - 1):+.0f} %")
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"rows": rows}, indent=1))


def measure(hosts: int, load_s: float, dark: int) -> Rise:
    lab = Lab("user")
    with tempfile.TemporaryDirectory(prefix="fleet-rack-", ignore_cleanup_errors=True) as folder:
        try:
            lab(hosts)
            return rise(lab, Path(folder), load_s, dark)
        finally:
            lab.close()


def _row(case: str, metric: str, value: float, peer: str, ratio: float) -> dict[str, object]:
    return {"case": case, "subject": "fleetctl", "metric": metric, "value": round(value, 3), "unit": "s",
            "peer": peer, "ratio": round(ratio, 3)}  # fmt: skip


if __name__ == "__main__":
    main()
