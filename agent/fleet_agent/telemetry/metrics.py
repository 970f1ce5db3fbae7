"""`GET /metrics`: the engine's counters in Prometheus' text form. Read when asked; nothing is counted twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fleet_agent.generate.figures import families as generating
from fleet_agent.outside.telling import families as of_engines
from fleet_agent.served.counters import Counters
from fleet_agent.telemetry.devices import device_metrics
from fleet_wire.histogram import GAMMA, LatencyHistogram

if TYPE_CHECKING:
    from fleet_agent.engine.engine import Engine

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
# Upper bounds in seconds.
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class EngineMetrics(Collector):
    """What Prometheus scrapes from one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        requests = CounterMetricFamily(
            "fleet_agent_requests", "Requests by how they ended.", labels=["model", "version", "outcome"]
        )
        batches = CounterMetricFamily("fleet_agent_batches", "Batches run.", labels=["model", "version"])
        items = CounterMetricFamily(
            "fleet_agent_batch_items", "Instances in them.", labels=["model", "version"]
        )
        queued = GaugeMetricFamily(
            "fleet_agent_queued_requests", "Requests that wait.", labels=["model", "version"]
        )
        running = GaugeMetricFamily(
            "fleet_agent_in_flight_requests", "Requests computed now.", labels=["model", "version"]
        )
        ready = GaugeMetricFamily(
            "fleet_agent_model_ready", "1: loaded and taking requests.", labels=["model", "version"]
        )
        latency = HistogramMetricFamily(
            "fleet_agent_request_duration_seconds",
            "From queueing to the answer.",
            labels=["model", "version"],
        )
        batch_s = HistogramMetricFamily(
            "fleet_agent_batch_duration_seconds",
            "A batch on the device, there and back.",
            labels=["model", "version"],
        )
        limit = GaugeMetricFamily(
            "fleet_agent_batch_size_limit",
            "Instances that a batch may have: max_batch_size, or less where memory did not hold it.",
            labels=["model", "version"],
        )
        wait = HistogramMetricFamily(
            "fleet_agent_queue_wait_seconds",
            "From queueing until the first of a request's instances is on its way to the device.",
            labels=["model", "version"],
        )
        sizes = HistogramMetricFamily(
            "fleet_agent_batch_size", "Instances in a batch.", labels=["model", "version"]
        )
        unwanted = CounterMetricFamily(
            "fleet_agent_unwanted_items",
            "Instances computed for requests that had been abandoned or had expired meanwhile.",
            labels=["model", "version"],
        )
        lengths = CounterMetricFamily(
            "fleet_agent_length",
            "Lengths of instances, and what was added to pad them to their batch; of models with length_buckets.",
            labels=["model", "version", "of"],
        )
        everyone = sorted(self._engine.everyone, key=lambda model: model.stage == "answering")
        here = {(model.config.name, model.config.version): model for model in everyone}
        # Versions that have left keep their counters.
        for (name, version), counters in self._engine.ledger.counters.items():
            labels = [name, version]
            for outcome, count in _outcomes(counters).items():
                requests.add_metric([*labels, outcome], count)
            batches.add_metric(labels, counters.batches)
            items.add_metric(labels, counters.items)
            latency.add_metric(labels, *_cumulative(counters.latency))
            batch_s.add_metric(labels, *_cumulative(counters.inference))
            wait.add_metric(labels, *_cumulative(counters.queue_wait.histogram))
            sizes.add_metric(labels, *_sized(counters.sizes))
            unwanted.add_metric(labels, counters.unwanted)
            lengths.add_metric([*labels, "instances"], counters.used_length)
            lengths.add_metric([*labels, "padding"], counters.padding_length)
            if (model := here.get((name, version))) is not None:
                queued.add_metric(labels, model.batcher.queued)
                running.add_metric(labels, model.batcher.in_flight)
                ready.add_metric(labels, self._engine.condition.ready(model))
                limit.add_metric(labels, model.cap.size)
        for name, engine in self._engine.outside.items():
            labels = [name, engine.config.version]
            for outcome, count in _outcomes(engine.counters).items():
                requests.add_metric([*labels, outcome], count)
            queued.add_metric(labels, engine.queued)
            running.add_metric(labels, engine.in_flight)
            ready.add_metric(labels, engine.ready and not self._engine.draining)
            latency.add_metric(labels, *_cumulative(engine.counters.latency))
        yield from (requests, batches, items, queued, running, ready, latency, batch_s, limit)
        yield from (wait, sizes, unwanted, lengths)
        texts = [
            (list(key), model.generation)
            for key, model in here.items()
            if model.traits is not None and model.traits.max_tokens is not None
        ]
        yield from generating(texts, _cumulative)
        yield CounterMetricFamily(
            "fleet_agent_busy_seconds",
            "How long the devices ran batches, mean over devices.",
            self._engine.condition.busy_s(),
        )
        yield GaugeMetricFamily(
            "fleet_agent_ready", "1: /readyz answers 200.", self._engine.condition.state() == "ready"
        )
        capacity = self._engine.condition.capacity_rps()
        if capacity is not None:
            yield GaugeMetricFamily(
                "fleet_agent_capacity_requests_per_second",
                "Within the latency target, by the curves.",
                capacity,
            )
        memory = self._engine.condition.device_memory()
        family = GaugeMetricFamily(
            "fleet_agent_device_memory_bytes", "Of all devices; absent where unknown.", labels=["kind"]
        )
        for kind, value in (("used", memory.used_bytes), ("total", memory.total_bytes)):
            if value is not None:
                family.add_metric([kind], value)
        yield family
        yield from of_engines(self._engine.outside, _cumulative)
        yield from device_metrics(self._engine.slots, self._engine.config.device_memory_total_bytes)


def _outcomes(counters: Counters) -> dict[str, int]:
    return {
        "completed": counters.completed,
        "error": counters.errors - counters.expired,
        "bad_request": counters.bad,
        "overloaded": counters.overloaded,
        "hopeless": counters.hopeless,
        "expired": counters.expired,
        "abandoned": counters.abandoned,
    }


def _sized(sizes: dict[int, int]) -> tuple[list[tuple[str, float]], float]:
    """Batches up to each size, and all their instances."""
    buckets = [
        (str(float(most)), float(sum(n for size, n in sizes.items() if size <= most))) for most in _SIZES
    ]
    return [*buckets, ("+Inf", float(sum(sizes.values())))], float(sum(k * n for k, n in sizes.items()))


def _cumulative(histogram: LatencyHistogram) -> tuple[list[tuple[str, float]], float]:
    """Counts up to each bound, to the precision of the histogram's own buckets, and the sum in seconds."""
    uppers = [(GAMMA**index / 1000.0, count) for index, count in histogram.counts.items()]
    buckets = [(str(bound), float(sum(n for upper, n in uppers if upper <= bound))) for bound in _BOUNDS]
    return [*buckets, ("+Inf", float(histogram.count))], histogram.sum_ms / 1000.0
