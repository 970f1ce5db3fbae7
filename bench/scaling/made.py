"""Traffic made up, to see how a policy does on shapes that none of the recorded traces has.

    python -m bench.scaling.made DIR [--seed N] && python -m bench.scaling --traces DIR --policies fleetctl

Each is eight days in rows of 20 s, of which six hours of the last day are evaluated; the same seed makes the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROW_S = 20.0
DAY_S = 86_400.0
DAYS = 8
PEAK = 480.0 * ROW_S
Column = np.ndarray[Any, Any]


def daily(t: Column, low: float = 0.2) -> Column:
    """A day's rise and fall, lowest at 4:00, highest at 16:00."""
    return low + (1 - low) * 0.5 * (1 - np.cos(2 * np.pi * (t / DAY_S - 4 / 24)))


def wander(chance: np.random.Generator, count: int, size: float, rows: float) -> Column:
    """Noise that lasts: around 0, `size` its deviation, forgetting over `rows`."""
    keep = np.exp(-1 / rows)
    steps = chance.normal(0, size * np.sqrt(1 - keep**2), count)
    found = np.empty(count)
    at = 0.0
    for row, step in enumerate(steps):
        at = keep * at + step
        found[row] = at
    return found


def _pulses(t: Column, starts: Column, seconds: Column, rise_s: float) -> Column:
    """1 in each span, with straight flanks of `rise_s`."""
    found = np.zeros(len(t))
    for start, length in zip(starts, seconds, strict=True):
        up = np.clip((t - start) / rise_s, 0, 1)
        down = np.clip((start + length - t) / rise_s, 0, 1)
        found = np.maximum(found, np.minimum(up, down))
    return found


def sine(t: Column, chance: np.random.Generator) -> Column:
    return daily(t) * (1 + wander(chance, len(t), 0.08, 15))


def step(t: Column, chance: np.random.Generator) -> Column:
    """A level that trebles once, never seen before, and stays for three hours."""
    return 0.3 + 0.7 * _pulses(t, np.array([7 * DAY_S + 12.3 * 3600]), np.array([3 * 3600.0]), 40.0)


def minutes(t: Column, chance: np.random.Generator) -> Column:
    """Every hour at :15, for four minutes, four times the rest (a job of everybody's)."""
    starts = np.arange(0, DAYS * DAY_S, 3600) + 900
    return 0.25 * (1 + wander(chance, len(t), 0.05, 10)) + 0.75 * _pulses(
        t, starts, np.full(len(starts), 240.0), 30.0
    )


def ramp(t: Column, chance: np.random.Generator) -> Column:
    """A flat week, then a tenfold rise over five hours."""
    return (0.1 + 0.9 * np.clip((t - 7 * DAY_S - 11 * 3600) / (5 * 3600), 0, 1)) * (
        1 + wander(chance, len(t), 0.05, 10)
    )


def weekend(t: Column, chance: np.random.Generator) -> Column:
    """Working days, two days off, and then the Monday that is evaluated: its morning, which yesterday had not."""
    off = ((t // DAY_S) == 5) | ((t // DAY_S) == 6)
    hour = t % DAY_S / 3600
    work = 0.15 + 0.85 / (1 + np.exp(-(hour - 12.5) * 3)) / (1 + np.exp((hour - 20) * 2))
    return np.where(off, 0.12, work) * (1 + wander(chance, len(t), 0.06, 15))


def batches(t: Column, chance: np.random.Generator) -> Column:
    """On and off: 10 to 30 minutes of full load, 20 to 60 of almost none, at no fixed times."""
    lengths = chance.uniform(600, 1800, 400)
    pauses = chance.uniform(1200, 3600, 400)
    starts = np.cumsum(lengths + pauses) - lengths
    return 0.05 + 0.95 * _pulses(t, starts, lengths, 60.0)


def bursts(t: Column, chance: np.random.Generator) -> Column:
    """A day's shape with bursts at random: twice to three times the rest within a minute, for 3 to 12 minutes."""
    starts = np.sort(chance.uniform(0, DAYS * DAY_S, 12 * DAYS))
    sizes = chance.uniform(1.0, 2.0, len(starts))
    extra = np.zeros(len(t))
    for start, size in zip(starts, sizes, strict=True):
        extra = np.maximum(
            extra, size * _pulses(t, np.array([start]), np.array([chance.uniform(180, 720)]), 60.0)
        )
    return daily(t, 0.4) * (1 + extra) * (1 + wander(chance, len(t), 0.05, 15))


def quiet(t: Column, chance: np.random.Generator) -> Column:
    """Nothing at night, working hours from noon of the evaluated span on."""
    hour = t % DAY_S / 3600
    return np.clip(np.minimum((hour - 11.5) * 2, (16.5 - hour) * 2), 0, 1) * (
        1 + wander(chance, len(t), 0.08, 15)
    )


def drift(t: Column, chance: np.random.Generator) -> Column:
    """No pattern at all: a level that wanders over an hour."""
    return np.exp(wander(chance, len(t), 0.6, 180))


MADE: dict[str, Callable[[Column, np.random.Generator], Column]] = {
    made.__name__: made for made in (sine, step, minutes, ramp, weekend, batches, bursts, quiet, drift)
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.scaling.made",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    t = np.arange(0, DAYS * DAY_S, ROW_S)
    facts = {}
    for place, (name, made) in enumerate(MADE.items()):
        chance = np.random.default_rng([given.seed, place])
        rate = np.maximum(made(t, chance), 0.0)
        counts = chance.poisson(PEAK * rate / rate.max())
        rows = "".join(f"{at:.0f},{n}\n" for at, n in zip(t, counts, strict=True))
        (given.folder / f"{name}.csv").write_text("timestamp_s,requests\n" + rows)
        facts[name] = {"evaluate_from_s": 7 * DAY_S + 11 * 3600, "evaluate_seconds": 6 * 3600}
    (given.folder / "index.json").write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
