"""What Prometheus is told of outside engines beside what it is told of every model. Read when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from fleet_agent.outside.engines import OutsideEngines
from fleet_wire.histogram import LatencyHistogram

_LABELS = ("model", "version")
Cumulative = Callable[[LatencyHistogram], tuple[list[tuple[str, float]], float]]


def families(engines: OutsideEngines, cumulative: Cumulative) -> Iterable[Metric]:
    """Nothing where there are no outside engines. A figure that is unknown is absent."""
    if not engines:
        return
    restarts = CounterMetricFamily(
        "fleet_agent_engine_restarts", "Outside engines that ended and were replaced.", labels=_LABELS
    )
    hangs = CounterMetricFamily(
        "fleet_agent_engine_hangs", "Outside engines that were killed for hanging.", labels=_LABELS
    )
    first = HistogramMetricFamily(
        "fleet_agent_first_piece_seconds",
        "From the arrival of a request to the first of its engine's answer.",
        labels=_LABELS,
    )
    waiting = GaugeMetricFamily(
        "fleet_agent_engine_waiting_requests", "Requests that wait in the engine, as it says.", labels=_LABELS
    )
    running = GaugeMetricFamily(
        "fleet_agent_engine_running_requests",
        "Requests that the engine works on, as it says.",
        labels=_LABELS,
    )
    cache = GaugeMetricFamily(
        "fleet_agent_engine_cache_use", "Share of the engine's cache in use, as it says.", labels=_LABELS
    )
    memory = GaugeMetricFamily(
        "fleet_agent_engine_memory_bytes", "Device memory that the engine's processes hold.", labels=_LABELS
    )
    for name, engine in engines.items():
        labels = [name, engine.config.version]
        restarts.add_metric(labels, engine.life.restarts)
        hangs.add_metric(labels, engine.life.hangs)
        first.add_metric(labels, *cumulative(engine.first_piece))
        figures = engine.figures
        for family, value in (
            (waiting, figures.waiting),
            (running, figures.running),
            (cache, figures.cache_use),
            (memory, engine.measured_bytes),
        ):
            if value is not None:
                family.add_metric(labels, value)
    yield from (restarts, hangs, first, waiting, running, cache, memory)
