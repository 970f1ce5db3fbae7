"""Does torch see the GPUs, in the environment in which agents run? PURE."""

from __future__ import annotations

from collections.abc import Iterator

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.finding import Finding, problem, skipped, unknown, warning, well

CPU = "agents compute on the CPU"


def judge(chart: Chart) -> Iterator[Finding]:
    fact = chart.facts.of("torch")
    if fact.missing:
        yield unknown("torch", f"whether torch sees a GPU is unknown: {fact.missing}")
    elif fact.text("skipped"):
        yield skipped("torch", fact.text("skipped"))
    elif not fact.text("torch"):
        what = f"torch can't be imported: {fact.text('why') or 'it did not say why'}"
        yield problem(
            "torch", what, "an agent can't start", "fleetctl up makes the environment anew; see its messages"
        )
    elif fact.yes("available"):
        yield well(
            "torch", f"torch {fact.text('torch')} sees {fact.number('devices') or 0:.0f} CUDA device(s)"
        )
    elif not fact.text("built"):
        fix = "Name a wheel with CUDA in the model's requirements or install.pip_args (as --index-url .../cu126)"
        yield warning("torch", f"torch {fact.text('torch')} is built without CUDA", CPU, fix)
    else:
        why = fact.text("why") or "it does not say why"
        yield problem(
            "torch",
            f"torch {fact.text('torch')} (CUDA {fact.text('built')}) sees no GPU: {why}",
            CPU + ", or do not start where agent.device is cuda",
            "on the host: nvidia-smi; a driver older than torch's CUDA wants is updated, or an older torch named",
        )
