"""A real fleet of three local hosts and its simulation, over the same arrivals.

    python -m bench.real_run [--minutes M] [--seed N] [--keep DIR]

Agents, balancer and controller are the real ones; only the model sleeps instead of computing. What a batch takes and
what a start takes is measured, the arrivals are recorded, and `fleetctl simulate` runs on them by the same fleet.yaml.
Prints both beside each other and writes bench/out/real_run.json. Ends with 1 where p95 differs by more than 15 % or
other numbers of servers were wanted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

from bench.real_run.clients import Answer, Clients, percentile, poisson

from fleet_controller.simulate import ServiceCurve, Trace
from fleet_controller.simulate.run import Setting, simulated
from fleet_controller.spec import load

HERE = Path(__file__).parent
OUT = HERE.parent / "out" / "real_run.json"
# Three hosts answer some 10 requests a second each, four in a batch.
BASE_MS, ITEM_MS, MAX_BATCH = 200.0, 50.0, 4
TARGET_MS = 1200.0
TOLERANCE = 0.15
INTERVAL_S = 2.0
# Requests a second over a run, as (share of its time, rate): up past one host and past two, and down again.
SHAPE = (
    (0.0, 3.0),
    (0.12, 3.0),
    (0.22, 13.0),
    (0.36, 13.0),
    (0.44, 21.0),
    (0.56, 21.0),
    (0.64, 3.0),
    (1.0, 3.0),
)


@dataclass(frozen=True)
class Outcome:
    """One run: seconds from its first look on. `turns`: when how many servers were wanted from then on."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    within: float
    turns: list[tuple[float, int, str]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.real_run", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="run in this folder and leave it there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="real-run-") as folder:
        return compare(options.keep or Path(folder), options.minutes * 60.0, options.seed)


def compare(folder: Path, seconds: float, seed: int) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    file = write(folder / "fleet.yaml", seconds)
    try:
        fleetctl(file, "up")
        curve, answers, began = asyncio.run(drive(endpoint(file), seconds, seed))
        told = [
            json.loads(line) for line in fleetctl(file, "events", "-n", "1000", "-o", "json").splitlines()
        ]
    finally:
        fleetctl(file, "down", "--yes")
    real, startups = seen(answers, told, began)
    twin = again(file, answers, began, curve, startups, seconds)
    report: dict[str, Any] = {
        "seconds": seconds,
        "requests": len(answers),
        "failed": sum(answer.status != 200 for answer in answers),
        "curve": {
            "base_ms": 1000 * curve.base_s,
            "item_ms": 1000 * curve.per_request_s,
            "max_batch": MAX_BATCH,
        },
        "startups_s": startups,
        "real": vars(real),
        "simulated": vars(twin),
        "difference": {
            key: getattr(twin, key) / getattr(real, key) - 1.0 for key in ("p50_ms", "p95_ms", "p99_ms")
        },
    }
    agree = abs(report["difference"]["p95_ms"]) <= TOLERANCE and numbers(real) == numbers(twin)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({**report, "agree": agree}, indent=1) + "\n")
    (folder / "answers.json").write_text(json.dumps([vars(answer) for answer in answers]))
    sys.stdout.write(table(report, real, twin, agree))
    return 0 if agree and not report["failed"] else 1


def write(file: Path, seconds: float) -> Path:
    """fleet.yaml: windows and cooldowns of a day, shortened as the day is."""
    pause = f"{max(4.0, seconds / 20.0):.0f}s"
    blocks: dict[str, Any] = {
        "fleet": "real-run",
        "hosts": [{"name": "h[1:3]", "address": "local"}],
        "models": [
            {
                "name": "paced",
                "source": str(HERE),
                "entrypoint": "model:Paced",
                "options": {"base_ms": BASE_MS, "item_ms": ITEM_MS},
                "batching": {"max_batch_size": MAX_BATCH},
            }
        ],
        "pools": [
            {
                "name": "default",
                "hosts": ["h*"],
                "models": ["paced"],
                "traffic": {"slow_start": "0s"},
                "scaling": {
                    "min_servers": 1,
                    "max_servers": 3,
                    "latency": {"percentile": 95, "target_ms": TARGET_MS, "window": "20s"},
                    "predictive": {"enabled": False},
                    "cooldown": {"scale_up": "10s", "scale_down": pause},
                    "stabilization": {"scale_down": pause},
                },
            }
        ],
        "balancer": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
        "controller": {"interval": f"{INTERVAL_S:.0f}s"},
    }
    file.write_text(json.dumps(blocks, indent=1))
    return file


def fleetctl(file: Path, *args: str) -> str:
    """`fleetctl ARGS`; its stdout. Raises CalledProcessError."""
    argv = [sys.executable, "-m", "fleetctl", "-f", str(file), *args]
    return subprocess.run(
        argv, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"}
    ).stdout


def endpoint(file: Path) -> str:
    return str(json.loads(fleetctl(file, "status", "-o", "json"))["endpoint"])


async def drive(at: str, seconds: float, seed: int) -> tuple[ServiceCurve, list[Answer], float]:
    """Measure the one host, then send the day; the measured curve, the answers, and when the day began."""
    clients = Clients(at, "paced")
    await clients.measured(1, 3)
    one, full = await clients.measured(1, 15), await clients.measured(MAX_BATCH, 15)
    item_s = (full - one) / (MAX_BATCH - 1)
    await asyncio.sleep(30.0)  # what was sent for this is out of every window
    began = time.time()
    moments = poisson([(share * seconds, rate) for share, rate in SHAPE], seed)
    answers = await clients.follow(moments)
    clients.close()
    return ServiceCurve(one - item_s, item_s, MAX_BATCH), answers, began


def seen(answers: list[Answer], told: list[dict[str, Any]], began: float) -> tuple[Outcome, list[float]]:
    """What clients and events say; and the seconds of each start that came while the day ran."""
    turns = [
        (e["at"] - began, e["to"], e["reason"]) for e in told if e["kind"] == "scale" and e["at"] > began
    ]
    starts: dict[str, float] = {}
    took: list[float] = []
    for event in told:
        if event["kind"] == "booting":
            starts[event["host"]] = event["at"]
        elif event["kind"] == "ready" and event["host"] in starts and event["at"] > began:
            took.append(event["at"] - starts.pop(event["host"]))
    return outcome([a.seconds for a in answers], turns), took


def outcome(seconds: list[float], turns: list[tuple[float, int, str]]) -> Outcome:
    ms = [1000.0 * s for s in seconds]
    within = sum(value <= TARGET_MS for value in ms) / len(ms)
    return Outcome(percentile(ms, 0.5), percentile(ms, 0.95), percentile(ms, 0.99), within, turns)


def again(
    file: Path,
    answers: list[Answer],
    began: float,
    curve: ServiceCurve,
    startups: list[float],
    seconds: float,
) -> Outcome:
    """The same arrivals, simulated."""
    rows = tuple((max(0.0, answer.at - began), 1) for answer in sorted(answers, key=lambda a: a.at))
    setting = Setting(
        startup_s=startups[-1] if startups else 10.0,
        startups=tuple(startups),
        curve=curve,
        interval_s=INTERVAL_S,
        start_at=began,
        initial=1,
    )
    report = simulated(Trace(rows, 0.0), load(file).pools[0].scaling, setting)
    turns = [(turn.at, turn.servers, turn.reason) for turn in report.turns[1:] if turn.at < seconds]
    p50, p95, p99 = (report.latency_ms[name] or 0.0 for name in ("p50", "p95", "p99"))
    return Outcome(p50, p95, p99, report.within_target or 0.0, turns)


def numbers(outcome: Outcome) -> list[int]:
    """How many servers were wanted, one after the other."""
    wanted = [servers for _, servers, _ in outcome.turns]
    return [b for a, b in pairwise([1, *wanted]) if a != b]


def table(report: dict[str, Any], real: Outcome, twin: Outcome, agree: bool) -> str:
    curve, starts = report["curve"], ", ".join(f"{s:.0f}" for s in report["startups_s"])
    lines = [
        f"{report['requests']} requests in {report['seconds']:.0f} s, {report['failed']} failed; a batch takes "
        f"{curve['base_ms']:.0f} ms + {curve['item_ms']:.0f} ms an item, the starts {starts} s",
        "",
        f"{'':24}{'real':>10}{'simulated':>12}{'difference':>12}",
    ]
    for key in ("p50_ms", "p95_ms", "p99_ms"):
        ms = getattr(real, key), getattr(twin, key)
        lines.append(f"{key:24}{ms[0]:>10.0f}{ms[1]:>12.0f}{100 * report['difference'][key]:>11.1f}%")
    lines.append(f"{'within target':24}{100 * real.within:>9.1f}%{100 * twin.within:>11.1f}%")
    lines.append(
        f"{'servers wanted':24}{' '.join(map(str, numbers(real))):>10}{' '.join(map(str, numbers(twin))):>12}"
    )
    for n, (a, b) in enumerate(zip_longest(real.turns, twin.turns)):
        at = [f"{turn[0]:.0f} s: {turn[1]}" if turn else "-" for turn in (a, b)]
        apart = f"{b[0] - a[0]:+.0f} s" if a and b else ""
        lines.append(f"{f'  turn {n + 1}':24}{at[0]:>10}{at[1]:>12}{apart:>12}  {(a or b)[2]}")
    lines.append("they agree" if agree else "they do NOT agree")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
