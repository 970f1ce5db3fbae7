"""The balancer's counters for Prometheus, read off the pools at each scrape: a request pays nothing for them.

Labels are pool and host names of the present list: as many series as there are hosts, whatever clients send.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fleet_balancer.front import Front
from fleet_balancer.proxy import Proxy
from fleet_wire.histogram import GAMMA, LatencyHistogram

# Upper bounds in seconds; a scrape folds the 2 % buckets of /status into these.
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class FrontCollector(Collector):
    """Every metric of the front, made at the time of the scrape."""

    def __init__(self, front: Front, proxy: Proxy) -> None:
        self._front = front
        self._proxy = proxy

    def collect(self) -> Iterator[Metric]:
        front = self._front
        requests = CounterMetricFamily(
            "fleet_balancer_requests", "Requests by how they ended", labels=["pool", "outcome"]
        )
        arrivals = CounterMetricFamily("fleet_balancer_arrivals", "Requests that came in", labels=["pool"])
        queued = GaugeMetricFamily("fleet_balancer_queued", "Requests that wait for a host", labels=["pool"])
        latency = HistogramMetricFamily(
            "fleet_balancer_latency_seconds",
            "First byte of the request to last of the reply",
            labels=["pool"],
        )
        for name, pool in front.pools.items():
            arrivals.add_metric([name], pool.arrivals)
            queued.add_metric([name], len(pool.waiting))
            for outcome in ("completed", "errors", "refused", "abandoned"):
                requests.add_metric([name, outcome], getattr(pool, outcome))
            histogram = pool.latency()
            latency.add_metric([name], _cumulative(histogram), histogram.sum_ms / 1000.0)
        yield from (arrivals, requests, queued, latency)
        in_flight = GaugeMetricFamily(
            "fleet_balancer_host_in_flight", "Requests on a host", labels=["pool", "host"]
        )
        healthy = GaugeMetricFamily("fleet_balancer_host_healthy", "1: probes pass", labels=["pool", "host"])
        sent = CounterMetricFamily(
            "fleet_balancer_host_requests", "Requests sent to a host", labels=["pool", "host"]
        )
        errors = CounterMetricFamily(
            "fleet_balancer_host_errors",
            "Requests answered with 5xx or broken off by a host",
            labels=["pool", "host"],
        )
        for member in front.members:
            labels = [member.pool, member.name]
            in_flight.add_metric(labels, member.in_flight)
            healthy.add_metric(labels, float(member.health.healthy))
            sent.add_metric(labels, member.requests)
            errors.add_metric(labels, member.errors)
        yield from (in_flight, healthy, sent, errors)
        connections = GaugeMetricFamily("fleet_balancer_client_connections", "Open client connections")
        connections.add_metric([], len(self._proxy.clients))
        unrouted = CounterMetricFamily("fleet_balancer_unrouted", "Requests for a model that no pool serves")
        unrouted.add_metric([], front.unrouted)
        yield from (connections, unrouted)


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
