"""Reads the load that a host reports in a reply: the field `endpoint-load-metrics` of ORCA. PURE.

Names as in xds.data.orca.v3, forms as in gRFC A51. The value is
`JSON {"mem_utilization": 0.3, "named_metrics": {...}}` or `TEXT mem_utilization=0.3, named_metrics.x=1`;
the base64 form (`BIN`) is not read. vLLM and Triton write their key-value cache as a named metric.
"""

from __future__ import annotations

import json
import math

from fleet_balancer.member.member import InlineLoad

# The first that is there is taken: the cache of keys and values fills long before the memory that it was given.
_MEMORY = (
    "named_metrics.kv_cache_usage_perc",
    "named_metrics.kv_cache_utilization",
    "mem_utilization",
)
_UTILIZATION = ("application_utilization", "cpu_utilization")
_RATE = ("rps_fractional", "rps")
LONGEST = 4096


def read_load(value: bytes, now: float) -> InlineLoad | None:
    """The load that a field's value tells; None where it tells none, or can't be read: a report is never needed."""
    if len(value) > LONGEST:
        return None
    form, _, text = value.decode("latin-1").strip().partition(" ")
    if form == "TEXT":
        found = _read_text(text)
    elif form == "JSON":
        found = _read_json(text)
    else:
        return None
    memory = _first(found, _MEMORY)
    utilization = _first(found, _UTILIZATION)
    rate = _first(found, _RATE)
    capacity = rate / utilization if rate and utilization else None
    if memory is None and capacity is None:
        return None
    return InlineLoad(now, None if memory is None else min(1.0, memory), capacity)


def _read_text(text: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for pair in text.split(","):
        name, _, number = pair.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            continue
    return found


def _read_json(text: str) -> dict[str, object]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    named = document.get("named_metrics")
    if isinstance(named, dict):
        document.update({f"named_metrics.{name}": number for name, number in named.items()})
    return document


def _first(found: dict[str, object], names: tuple[str, ...]) -> float | None:
    """The first of `names` that is a number of 0 or more."""
    for name in names:
        number = found.get(name)
        if isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number < math.inf:
            return float(number)
    return None
