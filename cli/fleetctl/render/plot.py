"""A simulation as a picture: what came in, how many servers there were, and the latency against its target."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet_controller.policies import Decision
from fleet_controller.simulate import Report
from fleet_controller.window import Signal
from fleetctl.failure import USAGE, Failed

FORMS = (".png", ".svg", ".pdf")
HOUR_S, MINUTE_S = 3600.0, 60.0
SHORT_S = 7200.0


@dataclass
class Looks:
    """What was seen at each look of the controller: a `watch` for the simulation."""

    at: list[float] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)

    def __call__(self, at: float, signal: Signal, decision: Decision) -> None:
        self.at.append(at)
        self.signals.append(signal)
        self.wanted.append(decision.desired)


def check(file: Path) -> None:
    """Before anything runs. Raises Failed where matplotlib is missing or the file can't be one."""
    if file.suffix.lower() not in FORMS:
        raise Failed(f"--plot {file}: the name must end in {', '.join(FORMS)}", USAGE)
    if not file.absolute().parent.is_dir():
        raise Failed(f"--plot {file}: there is no folder {file.absolute().parent}", USAGE)
    _figure()


def _figure() -> Any:
    try:  # an extra, and half a second to load: only who draws pays for it
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError:
        raise Failed(
            "--plot needs matplotlib, which is not installed: pip install 'fleetctl[plot]'", USAGE
        ) from None


def draw(file: Path, looks: Looks, report: Report, title: str) -> None:
    """Raises Failed where the file can't be written."""
    unit, name = (HOUR_S, "hours") if looks.at and looks.at[-1] > SHORT_S else (MINUTE_S, "minutes")
    times = [at / unit for at in looks.at]
    figure = _figure()(figsize=(11, 8), layout="constrained")
    load, servers, latency = figure.subplots(3, 1, sharex=True)
    load.plot(times, [s.arrivals_per_s for s in looks.signals], linewidth=0.8, color="tab:gray")
    load.set_ylabel("requests/s")
    load.set_title(title)
    servers.step(times, looks.wanted, where="post", linewidth=0.8, color="tab:orange", label="wanted")
    servers.step(
        times, [s.ready for s in looks.signals], where="post", linewidth=1.0, color="tab:blue", label="ready"
    )
    servers.set_ylabel("servers")
    servers.set_ylim(bottom=0)
    servers.legend(loc="upper right")
    for key, color in (("p50_ms", "tab:green"), ("p95_ms", "tab:blue"), ("p99_ms", "tab:purple")):
        latency.plot(
            times,
            [getattr(s, key) for s in looks.signals],
            linewidth=0.8,
            color=color,
            label=key.removesuffix("_ms"),
        )
    if report.target_ms is not None:
        latency.axhline(report.target_ms, linestyle="--", linewidth=1.0, color="tab:red", label="target")
    latency.set_yscale("log")
    latency.set_ylabel("latency, ms")
    latency.set_xlabel(name)
    latency.legend(loc="upper right")
    try:
        figure.savefig(file)
    except OSError as error:
        raise Failed(f"--plot {file}: can't be written: {error.strerror or error}") from None
