"""What happened to requests, by model and by what the pool did with them, for metrics. PURE.

Where a pool says which models it serves, those have rows; in a pool that takes any, the first MODELS that clients name.
All others share one row, so that nobody can fill the metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from fleet_wire.balancer import Figure

MODELS = 50
OTHER = "other"


class Traffic:
    """One pool's. Models are counted a few times a second and not with each request."""

    def __init__(self) -> None:
        self.again = 0
        self.second = 0
        self._declared: frozenset[str] = frozenset()
        self._completed: dict[str, int] = {}
        self._errors: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def configure(self, declared: Iterable[str]) -> None:
        """The models that the pool says it serves; none: any."""
        self._declared = frozenset(declared)

    def completed(self, models: Sequence[str | None], latencies_ms: Sequence[float]) -> None:
        """Requests that were answered, each with its model and latency."""
        if models.count(models[0]) == len(models):  # the usual traffic, without a look at each
            self._add(models[0], len(models), sum(latencies_ms))
            return
        counts = Counter(models)
        sums: dict[str | None, float] = dict.fromkeys(counts, 0.0)
        for model, ms in zip(models, latencies_ms, strict=True):
            sums[model] += ms
        for model, count in counts.items():
            self._add(model, count, sums[model])

    def _add(self, model: str | None, count: int, sum_ms: float) -> None:
        if model is not None:
            row = self._row(model)
            self._completed[row] += count
            self._seconds[row] += sum_ms / 1000.0

    def failed(self, model: str | None) -> None:
        """A request was answered with 5xx or broken off."""
        if model is not None:
            self._errors[self._row(model)] += 1

    def rows(self, pool: str) -> Iterator[Figure]:
        def counter(name: str, text: str, value: float, **labels: str) -> Figure:
            return Figure(name=name, kind="counter", help=text, labels={"pool": pool, **labels}, value=value)

        yield counter("placed_again", "Requests given to another host after one failed them", self.again)
        yield counter("second_claims", "Requests sent to a second host beside the first", self.second)
        for model in self._completed:
            text = "Requests by model and how they ended"
            of = {"completed": self._completed[model], "errors": self._errors[model]}
            for outcome, value in of.items():
                yield counter("model_requests", text, value, model=model, outcome=outcome)
            text = "Sum of the latencies of a model's completed requests"
            yield counter("model_latency_seconds", text, self._seconds[model], model=model)

    def _row(self, model: str) -> str:
        if model in self._completed:
            return model
        known = model in self._declared if self._declared else len(self._completed) < MODELS
        row = model if known else OTHER
        if row not in self._completed:
            self._completed[row] = self._errors[row] = 0
            self._seconds[row] = 0.0
        return row
