"""Who takes part: fleetctl at its defaults, and each peer at several settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from bench.scaling.cells import CURVE, TARGET_MS, Load
from bench.scaling.field import remembering
from bench.scaling.peers import (
    Dstack,
    Hpa,
    Knative,
    PredictiveScaling,
    RayServe,
    SkyServe,
    StaticPeak,
    StepScaling,
    TargetTracking,
)

from fleet_controller.simulate.run import Policy

OWN = "fleetctl"
Maker = Callable[[Load, float, float], Policy]


def _hours(load: Load) -> list[float]:
    per_hour = max(1, round(3600 / load.interval_s))
    smooth = np.convolve(load.history, np.ones(max(1, round(60 / load.interval_s))), "same") / max(
        1, round(60 / load.interval_s)
    ) if len(load.history) else load.history  # fmt: skip
    count = len(smooth) // per_hour
    return [float(smooth[len(smooth) - (count - h) * per_hour :][:per_hour].max()) for h in range(count)]


def concurrency(host_rps: float) -> float:
    """Requests at a host that runs at its limit: two batches, one that runs and one that waits."""
    batch = CURVE.base_s / (1 / host_rps - CURVE.per_request_s)
    return 2 * min(batch, float(CURVE.max_batch))


def subjects(quick: bool = False) -> dict[tuple[str, str], Maker]:
    """(name, setting) -> how to make its policy for a load, a start-up time and a host's capacity."""
    found: dict[tuple[str, str], Maker] = {(OWN, "defaults"): lambda load, s, rps: remembering(load, s)}

    def add(name: str, settings: tuple[Any, ...], make: Callable[[Any], Maker]) -> None:
        for setting in settings[-1:] if quick else settings:
            found[name, str(setting)] = make(setting)

    shares = (0.4, 0.5, 0.7)
    add("HPA utilization", (0.5, 0.7), lambda x: lambda load, s, rps: Hpa("utilization", x, rps))
    add("HPA requests", (0.5, 0.7), lambda x: lambda load, s, rps: Hpa("requests", x, rps))
    add("Knative KPA", shares, lambda x: lambda load, s, rps: Knative(x * concurrency(rps)))
    add("Ray Serve", shares, lambda x: lambda load, s, rps: RayServe(x * concurrency(rps)))
    add("AWS target tracking", (0.5, 0.7), lambda x: lambda load, s, rps: TargetTracking(x, rps))
    add(
        "AWS predictive + tracking", (0.5, 0.7),
        lambda x: lambda load, s, rps: PredictiveScaling(x, rps, _hours(load), load.start_at),
    )  # fmt: skip
    add("step scaling p95", (0.4, 0.55), lambda x: lambda load, s, rps: StepScaling(x * TARGET_MS))
    add("SkyServe", (0.5, 0.7), lambda x: lambda load, s, rps: SkyServe(x, rps))
    add("dstack", (0.5, 0.7), lambda x: lambda load, s, rps: Dstack(x, rps))
    add(
        "static peak", (0.8, 1.0),
        lambda x: lambda load, s, rps: StaticPeak(int(np.ceil(load.rate.max() / (x * rps)))),
    )  # fmt: skip
    return found
