"""The figures of all cells as one table for people, and as rows for machines."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from bench.scaling.field import Outcome
from bench.scaling.subjects import OWN

ASIDE = "azure_code"  # bursts faster than a host starts: no reactive policy holds the target there


def by_subject(outcomes: Iterable[Outcome]) -> dict[tuple[str, str], list[Outcome]]:
    found: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault((outcome.subject, outcome.setting), []).append(outcome)
    return found


def text(outcomes: list[Outcome], oracle: dict[tuple[str, float], float]) -> str:
    """Mean share within the target, the worst cell, host-hours over the oracle's, and flaps, by policy."""
    lines = [
        f"{'policy (setting)':36s} {'mean share':>10s} {'worst cell':>10s} {'hours/oracle':>12s} {'flaps/cell':>10s}"
        f"   azure_code: share, hours/oracle"
    ]
    ranked = []
    for (subject, setting), runs in by_subject(outcomes).items():
        common = [r for r in runs if r.trace != ASIDE] or runs
        aside = [r for r in runs if r.trace == ASIDE]
        mean = fmean(r.within for r in common)
        worst = min(common, key=lambda r: r.within)
        cost = fmean(r.host_hours / oracle[r.trace, r.startup_s] for r in common)
        flaps = fmean(r.flaps for r in common)
        line = f"{f'{subject} ({setting})':36s} {mean:10.2%} {worst.within:10.2%} {cost:12.2f} {flaps:10.1f}"
        if aside:
            share = fmean(r.within for r in aside)
            line += f"   {share:.2%}, {fmean(r.host_hours / oracle[r.trace, r.startup_s] for r in aside):.2f}"
        ranked.append((subject != OWN, -mean, line))
    lines += [line for *_, line in sorted(ranked)]
    lines.append("")
    for own in (r for r in outcomes if r.subject == OWN):
        lines.append(
            f"  {OWN} on {own.trace} at {own.startup_s:.0f} s: {own.within:.2%}, "
            f"{own.host_hours:.1f} host-hours, {own.host_hours / oracle[own.trace, own.startup_s]:.2f} x oracle, "
            f"{own.flaps} flaps, at most {own.peak} hosts"
        )
    return "\n".join(lines)


def rows(outcomes: list[Outcome], oracle: dict[tuple[str, float], float]) -> list[dict[str, Any]]:
    """{case, subject, metric, value, unit, peer, ratio}: fleetctl's figure, and its ratio to the peer's."""
    own = {(r.trace, r.startup_s): r for r in outcomes if r.subject == OWN}
    found: list[dict[str, Any]] = []
    for place, mine in own.items():
        case = f"{place[0]}-start{place[1]:.0f}s"
        hours = oracle[place]
        found.append(
            _row(case, "gpu_hours", mine.host_hours, "host-hours", "oracle", mine.host_hours / hours)
        )
        for other in outcomes:
            if other.subject == OWN or (other.trace, other.startup_s) != place:
                continue
            peer = f"{other.subject} ({other.setting})"
            found += [
                _row(case, "within_target", mine.within, "share", peer, _over(mine.within, other.within)),
                _row(
                    case,
                    "gpu_hours",
                    mine.host_hours,
                    "host-hours",
                    peer,
                    _over(mine.host_hours, other.host_hours),
                ),
                _row(case, "flaps", mine.flaps, "changes", peer, _over(mine.flaps, other.flaps)),
            ]
    for (subject, setting), runs in by_subject(outcomes).items():
        common = [r for r in runs if r.trace != ASIDE] or runs
        name = f"{subject} ({setting})"
        found += [
            _row("all", "mean_within_target", fmean(r.within for r in common), "share", name, None),
            _row("all", "worst_within_target", min(r.within for r in common), "share", name, None),
            _row(
                "all", "gpu_hours_over_oracle",
                fmean(r.host_hours / oracle[r.trace, r.startup_s] for r in common), "ratio", name, None,
            ),
            _row("all", "flaps_per_cell", fmean(r.flaps for r in common), "changes", name, None),
        ]  # fmt: skip
    return found


def _over(mine: float, other: float) -> float | None:
    return mine / other if other else None


def _row(case: str, metric: str, value: float, unit: str, peer: str, ratio: float | None) -> dict[str, Any]:
    return {
        "case": case, "subject": OWN if case != "all" or peer.startswith(OWN) else peer, "metric": metric,
        "value": value, "unit": unit, "peer": peer, "ratio": ratio,
    }  # fmt: skip
