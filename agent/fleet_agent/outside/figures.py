"""The three figures of an engine that count here, out of its Prometheus text. PURE.

The lines that are wanted are found by their names first: an engine may expose thousands, and only a few are parsed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from fleet_wire.command import MetricNames


@dataclass(frozen=True, slots=True)
class Figures:
    """Requests that wait in the engine and that it works on, and the share of its cache in use; None: unknown."""

    waiting: float | None = None
    running: float | None = None
    cache_use: float | None = None


def read(text: str, names: MetricNames) -> Figures:
    """Raises ValueError where a wanted line is no Prometheus text. What is absent, or no number, is unknown."""
    cache = _values(text, names.cache)
    waiting, running = _values(text, names.waiting), _values(text, names.running)
    return Figures(
        waiting=sum(waiting) if waiting else None,
        running=sum(running) if running else None,
        cache_use=min(1.0, max(0.0, *cache)) if cache else None,
    )


def _values(text: str, name: str | None) -> list[float]:
    if name is None:
        return []
    lines = [
        line
        for line in text.splitlines()
        if line.startswith(name) and line[len(name) : len(name) + 1] in "{ \t"
    ]
    found = []
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        found += [sample.value for sample in family.samples if sample.name == name]
    return [value for value in found if math.isfinite(value) and value >= 0]
