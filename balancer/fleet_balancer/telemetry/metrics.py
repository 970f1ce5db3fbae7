"""The balancer's counters for Prometheus, made from its status at each scrape: a request pays nothing for them.

Labels are names of pools, hosts, models and keys that the configuration has: as many series as those, whatever clients
send.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fleet_wire.balancer import BackendStatus, BalancerStatus, Figure, PoolStatus
from fleet_wire.histogram import GAMMA, LatencyHistogram

# Upper bounds in seconds; a scrape folds the 2 % buckets of /status into these.
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


def exposition(status: BalancerStatus) -> bytes:
    """The text that a scrape gets."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(status))
    return generate_latest(registry)


class _Scrape(Collector):
    def __init__(self, status: BalancerStatus) -> None:
        self._status = status

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        status = self._status
        yield from _of_pools(status.pools)
        yield from _of_hosts(status.backends)
        workers = GaugeMetricFamily("fleet_balancer_workers", "Processes that serve")
        workers.add_metric([], status.workers)
        started = GaugeMetricFamily(
            "fleet_balancer_start_time_seconds", "Unix time since which the counters count"
        )
        started.add_metric([], status.started_at)
        yield from (workers, started)
        yield from _of_figures(status.figures)


def _of_pools(pools: list[PoolStatus]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "fleet_balancer_requests", "Requests by how they ended", labels=["pool", "outcome"]
    )
    arrivals = CounterMetricFamily("fleet_balancer_arrivals", "Requests that came in", labels=["pool"])
    queued = GaugeMetricFamily("fleet_balancer_queued", "Requests that wait for a host", labels=["pool"])
    latency = HistogramMetricFamily(
        "fleet_balancer_latency_seconds", "First byte of the request to last of the reply", labels=["pool"]
    )
    for pool in pools:
        arrivals.add_metric([pool.name], pool.arrivals)
        queued.add_metric([pool.name], pool.queued)
        for outcome in ("completed", "errors", "refused", "abandoned"):
            requests.add_metric([pool.name, outcome], getattr(pool, outcome))
        histogram = LatencyHistogram.from_wire(pool.latency)
        latency.add_metric([pool.name], _cumulative(histogram), histogram.sum_ms / 1000.0)
    yield from (arrivals, requests, queued, latency)


def _of_hosts(hosts: list[BackendStatus]) -> Iterator[Metric]:
    labels = ["pool", "host"]
    in_flight = GaugeMetricFamily("fleet_balancer_host_in_flight", "Requests on a host", labels=labels)
    healthy = GaugeMetricFamily("fleet_balancer_host_healthy", "1: probes pass", labels=labels)
    draining = GaugeMetricFamily("fleet_balancer_host_draining", "1: gets nothing new", labels=labels)
    ejected = GaugeMetricFamily(
        "fleet_balancer_host_ejected_seconds", "Until an ejected host is tried again", labels=labels
    )
    weight = GaugeMetricFamily("fleet_balancer_host_weight", "Share among the pool's hosts", labels=labels)
    age = GaugeMetricFamily(
        "fleet_balancer_host_report_age_seconds", "Since the last memory report", labels=labels
    )
    sent = CounterMetricFamily("fleet_balancer_host_requests", "Requests sent to a host", labels=labels)
    errors = CounterMetricFamily(
        "fleet_balancer_host_errors", "Requests answered with 5xx or broken off by a host", labels=labels
    )
    for host in hosts:
        of = [host.pool, host.name]
        in_flight.add_metric(of, host.in_flight)
        healthy.add_metric(of, float(host.healthy))
        draining.add_metric(of, float(host.state == "draining"))
        ejected.add_metric(of, host.ejected_s or 0.0)
        weight.add_metric(of, host.weight)
        if host.report_age_s is not None:
            age.add_metric(of, host.report_age_s)
        sent.add_metric(of, host.requests)
        errors.add_metric(of, host.errors)
    yield from (in_flight, healthy, draining, ejected, weight, age, sent, errors)


def _of_figures(figures: list[Figure]) -> Iterator[Metric]:
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for figure in figures:
        family = families.get(figure.name)
        if family is None:
            kind = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
            name = f"fleet_balancer_{figure.name}"
            family = families[figure.name] = kind(name, figure.help, labels=sorted(figure.labels))
        family.add_metric([figure.labels[name] for name in sorted(figure.labels)], figure.value)
    yield from families.values()


def _cumulative(histogram: LatencyHistogram) -> list[tuple[str, float]]:
    """Counts up to each bound. A 2 % bucket counts where its upper end lies within the bound."""
    ordered = sorted(histogram.counts.items())
    result: list[tuple[str, float]] = []
    seen = 0
    at = 0
    for bound in BOUNDS_S:
        last = math.floor(math.log(bound * 1000.0) / math.log(GAMMA) + 1e-9)
        while at < len(ordered) and ordered[at][0] <= last:
            seen += ordered[at][1]
            at += 1
        result.append((repr(bound), float(seen)))
    result.append(("+Inf", float(histogram.count)))
    return result
