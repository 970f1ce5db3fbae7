"""What is counted about generating, and how `/metrics` says it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from fleet_wire.histogram import LatencyHistogram

_LABELS = ["model", "version"]

# A histogram as Prometheus wants it: counts up to each bound, and the sum in seconds.
Cumulative = Callable[[LatencyHistogram], tuple[list[tuple[str, float]], float]]


@dataclass(slots=True)
class Figures:
    """Since the start. `first` and `between`: milliseconds to the first token, and from each to the next."""

    steps: int = 0
    stepped: int = 0  # sequences in them, added up
    tokens: int = 0
    first: LatencyHistogram = field(default_factory=LatencyHistogram)
    between: LatencyHistogram = field(default_factory=LatencyHistogram)

    def merge(self, other: Figures) -> None:
        """Count the other's too."""
        self.steps += other.steps
        self.stepped += other.stepped
        self.tokens += other.tokens
        self.first.merge(other.first)
        self.between.merge(other.between)


class Generating(Protocol):
    """A model's generation, as far as it is shown here."""

    @property
    def figures(self) -> Figures: ...
    @property
    def queued(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def limit(self) -> int: ...


def families(models: Iterable[tuple[list[str], Generating]], cumulative: Cumulative) -> Iterable[Metric]:
    """For the models that generate, each with the values of its labels: name and version."""
    tokens = CounterMetricFamily("fleet_agent_tokens", "Tokens generated.", labels=_LABELS)
    steps = CounterMetricFamily("fleet_agent_steps", "Steps of generating.", labels=_LABELS)
    stepped = CounterMetricFamily("fleet_agent_step_sequences", "Sequences in them.", labels=_LABELS)
    running = GaugeMetricFamily("fleet_agent_running_sequences", "Sequences that run.", labels=_LABELS)
    waiting = GaugeMetricFamily("fleet_agent_waiting_sequences", "Sequences that wait.", labels=_LABELS)
    limit = GaugeMetricFamily(
        "fleet_agent_sequence_limit",
        "Sequences that may run at once on a device: max_batch_size, or less where memory did not hold it.",
        labels=_LABELS,
    )
    first = HistogramMetricFamily(
        "fleet_agent_time_to_first_token_seconds", "From queueing to the first token.", labels=_LABELS
    )
    between = HistogramMetricFamily(
        "fleet_agent_time_between_tokens_seconds", "From each token to the next.", labels=_LABELS
    )
    for labels, model in models:
        figures = model.figures
        tokens.add_metric(labels, figures.tokens)
        steps.add_metric(labels, figures.steps)
        stepped.add_metric(labels, figures.stepped)
        running.add_metric(labels, model.in_flight)
        waiting.add_metric(labels, model.queued)
        limit.add_metric(labels, model.limit)
        first.add_metric(labels, *cumulative(figures.first))
        between.add_metric(labels, *cumulative(figures.between))
    yield from (tokens, steps, stepped, running, waiting, limit, first, between)
