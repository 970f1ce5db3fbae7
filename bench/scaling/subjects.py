"""Who takes part: fleetctl at its defaults, and each peer at several settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from bench.scaling.cells import TARGET_MS, Load
from bench.scaling.field import remembering, steady
from bench.scaling.peers import (
    Dstack,
    Hpa,
    Knative,
    Peer,
    PredictiveScaling,
    RayServe,
    SkyServe,
    StaticPeak,
    StepScaling,
    TargetTracking,
)

from fleet_controller.simulate.run import OwnPolicy

OWN = "fleetctl"
STATIC = "static peak"
Maker = Callable[[Load, float, float], OwnPolicy | Peer]


def _hours(load: Load) -> list[float]:
    per_hour = max(1, round(3600 / load.interval_s))
    smooth = np.convolve(load.history, np.ones(max(1, round(60 / load.interval_s))), "same") / max(
        1, round(60 / load.interval_s)
    ) if len(load.history) else load.history  # fmt: skip
    count = len(smooth) // per_hour
    return [float(smooth[len(smooth) - (count - h) * per_hour :][:per_hour].max()) for h in range(count)]


def concurrency(share: float, host_rps: float) -> float:
    """Requests at a host, waiting or in work, while each host carries this share of its limit: what an operator who
    tries it under load would set as target. (It is no share of the concurrency at the limit: with batches that grows
    much faster than the load, and a target on the steep part swings between too few hosts and all of them.)"""
    return steady(share * host_rps).at_each


def _predictive(share: float) -> Maker:
    return lambda load, s, rps: PredictiveScaling(share, rps, _hours(load), load.start_at)


def _static(share: float) -> Maker:
    return lambda load, s, rps: StaticPeak(int(np.ceil(load.rate.max() / (share * rps))))


class Family(NamedTuple):
    """One autoscaler, the settings it is tried at, and those between and beyond them that show which share within the
    target it reaches for any number of host-hours (on the trace that is set aside)."""

    name: str
    make: Callable[[float], Maker]
    settings: tuple[float, ...]
    more: tuple[float, ...]


SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FIELD = (
    Family("HPA utilization", lambda x: lambda load, s, rps: Hpa("utilization", x, rps), (0.5, 0.6, 0.7), SHARES),
    Family("HPA requests", lambda x: lambda load, s, rps: Hpa("requests", x, rps), (0.3, 0.5, 0.7), SHARES),
    Family("Knative KPA", lambda x: lambda load, s, rps: Knative(concurrency(x, rps)), (0.3, 0.4, 0.5, 0.7), SHARES),
    Family("Ray Serve", lambda x: lambda load, s, rps: RayServe(concurrency(x, rps)), (0.3, 0.4, 0.5, 0.7), SHARES),
    Family("AWS target tracking", lambda x: lambda load, s, rps: TargetTracking(x, rps), (0.3, 0.5, 0.7), SHARES),
    Family("AWS predictive + tracking", _predictive, (0.5, 0.6, 0.7), ()),
    Family(
        "step scaling p95", lambda x: lambda load, s, rps: StepScaling(x * TARGET_MS),
        (0.3, 0.4, 0.55), (0.15, 0.2, 0.25, 0.3, 0.4, 0.55, 0.7, 0.9),
    ),
    Family("SkyServe", lambda x: lambda load, s, rps: SkyServe(x, rps), (0.3, 0.5, 0.7), SHARES),
    Family("dstack", lambda x: lambda load, s, rps: Dstack(x, rps), (0.3, 0.5, 0.7), SHARES),
    Family(STATIC, _static, (0.7, 0.8, 1.0), (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0)),
)  # fmt: skip
Key = tuple[str, str]


def subjects(quick: bool = False) -> dict[Key, Maker]:
    """(name, setting) -> how to make its policy for a load, a start-up time and a host's capacity. `quick`: each at
    one setting."""
    found: dict[Key, Maker] = {(OWN, "defaults"): lambda load, s, rps: remembering(load, s)}
    for family in FIELD:
        for setting in family.settings[1:2] if quick else family.settings:
            found[family.name, str(setting)] = family.make(setting)
    return found


def sweep() -> dict[Key, Maker]:
    """The settings between and beyond."""
    return {(family.name, str(x)): family.make(x) for family in FIELD for x in family.more}
