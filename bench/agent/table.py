"""The benchmark's figures as rows and as a table: medians of the rounds, ours over theirs."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

UNITS = {"throughput": "req/s", "p50": "ms", "p99": "ms", "added_ms": "ms", "goodput": "req/s"}
# (case or model, subject, metric) -> one figure a round
Seen = dict[tuple[str, str, str], list[float]]
# (subject, case or model) -> why there is no figure
Failures = dict[tuple[str, str], str]

_FORMS = {"mosec": ("json", "binary", "raw"), "fleetctl": ("json", "binary", "raw")}


@dataclass(frozen=True, slots=True)
class Case:
    """`connections` 0: the search for the goodput. `quick`: also in the quick form."""

    name: str
    model: str
    form: str
    connections: int
    quick: bool = False

    @property
    def metrics(self) -> tuple[str, ...]:
        if not self.connections:
            return ("goodput",)
        return ("throughput", "p50", "p99", *(("added_ms",) if self.connections == 1 else ()))

    def forms_of(self, subject: str) -> tuple[str, ...]:
        """What the subject is sent in this case; none where it has no such form."""
        if self.form not in _FORMS.get(subject, ("json",)):
            return ()
        return ("json", "orjson") if (subject, self.form) == ("mosec", "json") else (self.form,)

    def peers(self, peers: list[str]) -> list[str]:
        """With names of their own for a peer's variants."""
        named = [peer for peer in peers if self.forms_of(peer)]
        if "mosec" in named and self.form == "json":
            named.insert(named.index("mosec") + 1, "mosec-orjson")
        return named


def rows_of(cases: list[Case], peers: list[str], seen: Seen, failures: Failures) -> list[dict[str, Any]]:
    medians = {key: statistics.median(values) for key, values in seen.items()}
    rows = []
    for case in cases:
        for metric in case.metrics:
            ours = medians.get((case.name, "fleetctl", metric))
            others = [(peer, medians.get((case.name, peer, metric))) for peer in case.peers(peers)]
            if metric == "throughput":
                others.insert(0, ("bare-torch", medians.get((case.model, "bare-best", metric))))
            for peer, theirs in others:
                row = {"case": case.name, "subject": "fleetctl", "metric": metric, "value": _short(ours)}
                row |= {"unit": UNITS[metric], "peer": peer, "peer_value": _short(theirs)}
                row["ratio"] = round(ours / theirs, 3) if ours is not None and theirs else None
                error = _why("fleetctl", case, failures) or _why(peer, case, failures)
                rows.append(row | ({"error": error} if error else {}))
    return rows


def show(cases: list[Case], peers: list[str], seen: Seen, failures: Failures) -> None:
    print(
        f"{'case':<18} {'subject':<18} {'req/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'added ms':>8} {'goodput':>8} "
        f"{'fleetctl is':>11}"
    )
    for case in cases:
        main = case.metrics[0]
        ours = seen.get((case.name, "fleetctl", main))
        best = seen.get((case.model, "bare-best", "throughput"))
        if best and case.connections:
            _line(case, "bare torch", {"throughput": best}, ours, main)
        for subject in ("fleetctl", *case.peers(peers)):
            got = {metric: seen.get((case.name, subject, metric), []) for metric in case.metrics}
            if got[main]:
                _line(case, subject, got, ours, main)
            else:
                print(f"{case.name:<18} {subject:<18} {_why(subject, case, failures) or 'not run'}")


def _line(case: Case, subject: str, got: dict[str, list[float]], ours: list[float] | None, main: str) -> None:
    cells = []
    for metric, width in (("throughput", 9), ("p50", 8), ("p99", 8), ("added_ms", 8), ("goodput", 8)):
        values = got.get(metric)
        digits = 0 if metric in ("throughput", "goodput") else 2
        cells.append(f"{statistics.median(values):{width}.{digits}f}" if values else f"{'-':>{width}}")
    theirs = statistics.median(got[main]) if got.get(main) else 0.0
    ratio = f"{statistics.median(ours) / theirs:10.2f}x" if ours and theirs else f"{'-':>11}"
    print(f"{case.name:<18} {subject:<18} {' '.join(cells)} {'' if subject == 'fleetctl' else ratio}")


def _why(subject: str, case: Case, failures: Failures) -> str | None:
    """What kept the subject from this case, or from its whole model."""
    for name in (subject, subject.removesuffix("-orjson")):
        for where in (case.name, case.model):
            if (name, where) in failures:
                return failures[name, where]
    return None


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
