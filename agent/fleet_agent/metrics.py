"""`GET /metrics`: the engine's counters in Prometheus' text form. Read when asked; nothing is counted twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fleet_wire.histogram import GAMMA, LatencyHistogram

if TYPE_CHECKING:
    from fleet_agent.engine import Engine

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
        for name, model in self._engine.models.items():
            labels = [name, model.config.version]
            counters = model.counters
            outcomes = {
                "completed": counters.completed,
                "error": counters.errors - counters.expired,
                "bad_request": counters.bad,
                "overloaded": counters.overloaded,
                "hopeless": counters.hopeless,
                "expired": counters.expired,
                "abandoned": counters.abandoned,
            }
            for outcome, count in outcomes.items():
                requests.add_metric([*labels, outcome], count)
            batches.add_metric(labels, counters.batches)
            items.add_metric(labels, counters.items)
            queued.add_metric(labels, model.batcher.queued)
            running.add_metric(labels, model.batcher.in_flight)
            ready.add_metric(labels, self._engine.model_ready(name))
            latency.add_metric(labels, *_cumulative(counters.latency))
            batch_s.add_metric(labels, *_cumulative(counters.inference))
            limit.add_metric(labels, model.cap.size)
        yield from (requests, batches, items, queued, running, ready, latency, batch_s, limit)
        yield CounterMetricFamily(
            "fleet_agent_busy_seconds",
            "How long the devices ran batches, mean over devices.",
            self._engine.busy_s(),
        )
        restarts = sum(slot.restarts for slot in self._engine.slots)
        yield CounterMetricFamily(
            "fleet_agent_worker_restarts", "Workers that ended and were replaced.", restarts
        )
        hangs = sum(slot.hangs for slot in self._engine.slots)
        yield CounterMetricFamily("fleet_agent_worker_hangs", "Workers that were killed for hanging.", hangs)
        yield GaugeMetricFamily(
            "fleet_agent_ready", "1: /readyz answers 200.", self._engine.state() == "ready"
        )
        memory = self._engine.device_memory()
        family = GaugeMetricFamily(
            "fleet_agent_device_memory_bytes", "Absent where unknown.", labels=["kind"]
        )
        for kind, value in (("used", memory.used_bytes), ("total", memory.total_bytes)):
            if value is not None:
                family.add_metric([kind], value)
        yield family


def _cumulative(histogram: LatencyHistogram) -> tuple[list[tuple[str, float]], float]:
    """Counts up to each bound, to the precision of the histogram's own buckets, and the sum in seconds."""
    uppers = [(GAMMA**index / 1000.0, count) for index, count in histogram.counts.items()]
    buckets = [(str(bound), float(sum(n for upper, n in uppers if upper <= bound))) for bound in _BOUNDS]
    return [*buckets, ("+Inf", float(histogram.count))], histogram.sum_ms / 1000.0
