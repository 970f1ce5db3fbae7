"""The figures of all cells as tables for people, and as rows for machines."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from statistics import fmean
from typing import Any, NamedTuple

from bench.scaling.field import Outcome
from bench.scaling.subjects import OWN, STATIC

ASIDE = "azure_code"  # bursts faster than a host starts: no reactive policy holds the target there
KEPT = 0.995
Place = tuple[str, float]


class Standing(NamedTuple):
    """One policy at one setting over all cells (those set aside left out)."""

    subject: str
    setting: str
    mean: float
    worst: Outcome
    cost: float  # GPU-hours over the oracle's, mean of the cells' ratios
    flaps: float
    changes: float

    @property
    def name(self) -> str:
        return f"{self.subject} ({self.setting})"


def standings(outcomes: Iterable[Outcome], oracle: dict[Place, float]) -> list[Standing]:
    """fleetctl first, then by mean share. Only policies that ran on every cell."""
    found: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.trace != ASIDE:
            found.setdefault((outcome.subject, outcome.setting), []).append(outcome)
    ranked = [
        Standing(
            *key,
            fmean(r.within for r in runs),
            min(runs, key=lambda r: r.within),
            fmean(_cost(r, oracle) for r in runs),
            fmean(r.flaps for r in runs),
            fmean(r.changes for r in runs),
        )
        for key, runs in found.items()
    ]
    return sorted(ranked, key=lambda s: (s.subject != OWN, -s.mean))


def text(outcomes: list[Outcome], oracle: dict[Place, float]) -> str:
    ranked = standings(outcomes, oracle)
    parts = [_overall(ranked), _verdict(ranked), _cells(outcomes, oracle, ranked), _own(outcomes, oracle)]
    if any(r.trace == ASIDE for r in outcomes):
        parts.append(_aside(outcomes, oracle))
    return "\n\n".join(part for part in parts if part)


def _overall(ranked: list[Standing]) -> str:
    if not ranked:
        return ""
    head = (
        f"{'policy (setting)':32s} {'mean share':>10s} {'worst cell':>10s} {'hours/oracle':>12s} "
        f"{'flaps/cell':>10s} {'turns/cell':>10s}  worst on"
    )
    lines = [
        f"{s.name:32s} {s.mean:10.2%} {s.worst.within:10.2%} {s.cost:12.2f} {s.flaps:10.1f} {s.changes:10.1f}  "
        f"{s.worst.trace} at {s.worst.startup_s:.0f} s"
        for s in ranked
    ]
    note = (
        "share: requests answered within the target; flaps: changes of direction within 5 minutes; turns: all"
    )
    return "\n".join([head, *lines, note])


def cheapest(ranked: list[Standing], share: float = KEPT) -> Standing | None:
    """The peer that keeps `share` on average with the fewest host-hours."""
    keeping = [s for s in ranked if s.subject != OWN and s.mean >= share]
    return min(keeping, key=lambda s: s.cost, default=None)


def _verdict(ranked: list[Standing]) -> str:
    own = next((s for s in ranked if s.subject == OWN), None)
    if own is None or len(ranked) == 1:
        return ""
    reactive = [s for s in ranked if s.subject != STATIC]
    lines = []
    for title, field in (("peer", reactive), ("peer or static fleet", ranked)):
        best = cheapest(field)
        lines.append(
            f"cheapest {title} that keeps {KEPT:.1%} on average: "
            + (
                f"{best.name} with {best.mean:.2%} at {best.cost:.2f} x the oracle; fleetctl {own.mean:.2%} at "
                f"{own.cost:.2f} x, {own.cost / best.cost:.2f} of its host-hours"
                if best
                else f"none; fleetctl {own.mean:.2%} at {own.cost:.2f} x the oracle"
            )
        )
    hpas = [s for s in ranked if s.subject.startswith("HPA")]
    if hpas:
        lines.append(
            f"changes of direction within 5 minutes a cell: fleetctl {own.flaps:.1f}; "
            + ", ".join(f"{s.name} {s.flaps:.1f}" for s in hpas)
        )
    return "\n".join(lines)


def _cells(outcomes: list[Outcome], oracle: dict[Place, float], ranked: list[Standing]) -> str:
    """Share and hours over the oracle's by cell."""
    if len(ranked) < 2:
        return ""
    found = {(r.subject, r.setting, r.trace, r.startup_s): r for r in outcomes}
    places = [place for place in oracle if place[0] != ASIDE]
    lines = [
        f"{'share % / hours over oracle':30s}" + "".join(f"{f'{t[:9]} {s:.0f}':>15s}" for t, s in places)
    ]
    for standing in ranked:
        line = f"{standing.name:30s}"
        for place in places:
            run = found.get((standing.subject, standing.setting, *place))
            line += f"{f'{100 * run.within:.2f}/{_cost(run, oracle):.2f}' if run else '-':>15s}"
        lines.append(line)
    return "\n".join(lines)


def _own(outcomes: list[Outcome], oracle: dict[Place, float]) -> str:
    own = [r for r in outcomes if r.subject == OWN]
    lines = [
        f"  {OWN} on {r.trace} at {r.startup_s:.0f} s: {r.within:.2%}, {r.host_hours:.1f} host-hours, "
        f"{_cost(r, oracle):.2f} x oracle, {r.flaps} flaps, {r.changes} turns, at most {r.peak} hosts"
        for r in own
    ]
    if common := [r for r in own if r.trace != ASIDE]:
        lines.append(
            f"  {OWN} over {len(common)} cells: mean {fmean(r.within for r in common):.3%}, "
            f"worst {min(r.within for r in common):.2%}, {fmean(_cost(r, oracle) for r in common):.3f} x oracle, "
            f"{fmean(r.flaps for r in common):.1f} flaps, {fmean(r.changes for r in common):.1f} turns a cell"
        )
    return "\n".join(lines)


class Equal(NamedTuple):
    """What a peer reaches for so many host-hours, between its settings."""

    subject: str
    within: float


def at_equal_hours(outcomes: Iterable[Outcome], hours: float) -> list[Equal]:
    """Each peer's share for `hours`, best first: between two of its settings as if it were run so long at the one and
    so long at the other, only along those that no cheaper one betters. A peer without a setting that cheap is not in
    it."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.subject, []).append(outcome)
    equals = []
    for subject, runs in found.items():
        front: list[tuple[float, float]] = []
        for run in sorted(runs, key=lambda r: (r.host_hours, -r.within)):
            if not front or run.within > front[-1][1]:
                front.append((run.host_hours, run.within))
        if front[0][0] > hours:
            continue
        share = front[-1][1]
        for (low, before), (high, after) in itertools.pairwise(front):
            if low <= hours <= high:
                share = before + (after - before) * (hours - low) / (high - low)
                break
        equals.append(Equal(subject, share))
    return sorted(equals, key=lambda e: -e.within)


def _aside(outcomes: list[Outcome], oracle: dict[Place, float]) -> str:
    """The trace that no scaling can hold: what each reaches at fleetctl's host-hours."""
    lines = [f"{ASIDE} (bursts faster than a host starts), at equal host-hours:"]
    for own in (r for r in outcomes if r.subject == OWN and r.trace == ASIDE):
        place = (own.trace, own.startup_s)
        peers = [r for r in outcomes if (r.trace, r.startup_s) == place and r.subject != OWN]
        equals = at_equal_hours(peers, own.host_hours)
        reactive = [e for e in equals if e.subject != STATIC]
        line = (
            f"  {own.startup_s:.0f} s: fleetctl {own.within:.2%} with {own.host_hours:.2f} host-hours "
            f"({_cost(own, oracle):.2f} x oracle)"
        )
        if reactive:
            best = reactive[0]
            word = "no worse than" if own.within >= best.within else "WORSE than"
            line += f", {word} the best reactive peer at these hours: {best.subject} {best.within:.2%}"
        lines.append(line)
        lines.append("      " + ", ".join(f"{e.subject} {e.within:.2%}" for e in equals))
        holding = [r for r in peers if r.subject == STATIC and r.within >= KEPT]
        if holding:
            floor = min(holding, key=lambda r: r.host_hours)
            lines.append(
                f"      the floor that holds it: {floor.peak} hosts, {floor.within:.2%}, "
                f"{_cost(floor, oracle):.2f} x oracle"
            )
    return "\n".join(lines)


def rows(outcomes: list[Outcome], oracle: dict[Place, float]) -> list[dict[str, Any]]:
    """{case, subject, metric, value, unit, peer, ratio}: fleetctl's figure, and its ratio to the peer's."""
    found: list[dict[str, Any]] = []
    for mine in (r for r in outcomes if r.subject == OWN):
        case = f"{mine.trace}-start{mine.startup_s:.0f}s"
        found.append(_row(case, "gpu_hours", mine.host_hours, "host-hours", "oracle", _cost(mine, oracle)))
        for other in outcomes:
            if other.subject == OWN or (other.trace, other.startup_s) != (mine.trace, mine.startup_s):
                continue
            peer = f"{other.subject} ({other.setting})"
            found += [
                _row(case, "within_target", mine.within, "share", peer, _over(mine.within, other.within)),
                _row(case, "gpu_hours", mine.host_hours, "host-hours", peer, _over(mine.host_hours, other.host_hours)),
                _row(case, "quick_turns", mine.flaps, "changes", peer, _over(mine.flaps, other.flaps)),
            ]  # fmt: skip
        if mine.trace == ASIDE:
            peers = [
                r for r in outcomes if r.trace == ASIDE and r.startup_s == mine.startup_s and r.subject != OWN
            ]
            found += [
                _row(
                    case,
                    "within_at_equal_hours",
                    mine.within,
                    "share",
                    e.subject,
                    _over(mine.within, e.within),
                )
                for e in at_equal_hours(peers, mine.host_hours)
            ]
    ranked = standings(outcomes, oracle)
    for own in (s for s in ranked if s.subject == OWN):
        found.append(_row("all", "gpu_hours_over_oracle", own.cost, "ratio", "oracle", own.cost))
        for peer in (s for s in ranked if s.subject != OWN):
            found += [
                _row("all", "mean_within_target", own.mean, "share", peer.name, _over(own.mean, peer.mean)),
                _row("all", "worst_within_target", own.worst.within, "share", peer.name,
                     _over(own.worst.within, peer.worst.within)),
                _row("all", "gpu_hours_over_oracle", own.cost, "ratio", peer.name, _over(own.cost, peer.cost)),
                _row("all", "quick_turns", own.flaps, "changes", peer.name, _over(own.flaps, peer.flaps)),
            ]  # fmt: skip
        if best := cheapest([s for s in ranked if s.subject != STATIC]):
            found.append(
                _row("all", "gpu_hours_over_oracle_where_99.5_percent_is_kept", own.cost, "ratio", best.name,
                     _over(own.cost, best.cost))
            )  # fmt: skip
    return found


def _cost(run: Outcome, oracle: dict[Place, float]) -> float:
    return run.host_hours / oracle[run.trace, run.startup_s]


def _over(mine: float, other: float) -> float | None:
    return mine / other if other else None


def _row(case: str, metric: str, value: float, unit: str, peer: str, ratio: float | None) -> dict[str, Any]:
    return {
        "case": case, "subject": OWN, "metric": metric, "value": value, "unit": unit, "peer": peer, "ratio": ratio,
    }  # fmt: skip
