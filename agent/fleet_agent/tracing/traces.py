"""OpenTelemetry traces: a span for each request, with the time in the queue and on the device below it.

Only imported where traces are wanted (tracewish.py). A `traceparent` that comes with a request is honoured: the span is
its child, and the caller's decision whether to record is kept. Spans are sent by a thread of the SDK's own,
in batches; a collector that doesn't answer loses spans and holds up nobody.

Sources: W3C "Trace Context"; OpenTelemetry specification, "Environment Variable Specification".
"""

from __future__ import annotations

import os
import socket
import time

from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fleet_agent.http.call import Headers
from fleet_wire.agent import AgentConfig, ModelConfig
from fleet_wire.refusal import Refusal

_EXPORT_S = 3.0
_CARRIED = ("traceparent", "tracestate")


class Trace:
    """One request's span, from `Traces.begin` to `ended`."""

    __slots__ = ("_sent_ns", "_size", "_span", "_started_ns", "_tracer")

    def __init__(self, tracer: api.Tracer, span: api.Span) -> None:
        self._tracer = tracer
        self._span = span
        self._started_ns = time.time_ns()
        self._sent_ns: int | None = None
        self._size: int | None = None

    def sent(self, size: int | None) -> None:
        """The first of its instances is on its way to the device, in a batch of `size` (None: that isn't known)."""
        if self._sent_ns is None:
            self._sent_ns = time.time_ns()
            self._size = size

    def onward(self) -> dict[str, str]:
        """The headers by which another server's spans come below this one."""
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, api.set_span_in_context(self._span))
        return carrier

    def ended(self, refusal: Refusal | None, status: int = 200) -> None:
        """It was answered, with that status, or refused."""
        now = time.time_ns()
        span = self._span
        below = api.set_span_in_context(span)
        queued = self._tracer.start_span("queue", below, start_time=self._started_ns)
        queued.end(self._sent_ns or now)
        if self._sent_ns is not None:
            inference = self._tracer.start_span("inference", below, start_time=self._sent_ns)
            if self._size is not None:
                inference.set_attribute("fleet.batch_size", self._size)
                span.set_attribute("fleet.batch_size", self._size)
            inference.end(now)
        if refusal is not None:
            span.set_attribute("fleet.refusal", refusal.code)
            if refusal.status >= 500:
                span.set_status(api.StatusCode.ERROR, str(refusal))
        span.set_attribute("http.response.status_code", status if refusal is None else refusal.status)
        span.end(now)

    def abandoned(self) -> None:
        """The client went away."""
        self._span.set_attribute("fleet.abandoned", True)
        self._span.end()


class Traces:
    """Begins spans; `close` it to send what is left."""

    def __init__(self, processor: SpanProcessor, resource: Resource, sampler: Sampler | None) -> None:
        """`sampler`: None is what OTEL_TRACES_SAMPLER says."""
        self._provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("fleet_agent")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, headers: Headers, model: ModelConfig) -> Trace | None:
        """None: this request is not recorded."""
        carrier = {
            name: value.decode("latin-1") for name in _CARRIED if (value := headers.get(name.encode()))
        }
        parent = self._propagator.extract(carrier)
        span = self._tracer.start_span(
            model.name,
            parent,
            api.SpanKind.SERVER,
            {
                "fleet.request_id": headers.get(b"x-request-id", b"").decode("latin-1"),
                "fleet.model": model.name,
                "fleet.model.version": model.version,
            },
        )
        return Trace(self._tracer, span) if span.is_recording() else None

    def close(self) -> None:
        """Send what is left; takes seconds where the collector doesn't answer."""
        self._provider.shutdown()


def traces(config: AgentConfig) -> Traces:
    """As the configuration and the standard OTEL_... variables say; the configuration first."""
    endpoint = config.telemetry.otlp_endpoint
    exporter = OTLPSpanExporter(
        endpoint=None if endpoint is None else f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_S
    )
    attributes = {"host.name": config.host or socket.gethostname(), "fleet": config.fleet}
    if "OTEL_SERVICE_NAME" not in os.environ:
        attributes["service.name"] = "fleet-agent"
    sampler = ParentBased(TraceIdRatioBased(config.telemetry.sample))
    chosen = None if "OTEL_TRACES_SAMPLER" in os.environ else sampler
    return Traces(BatchSpanProcessor(exporter), Resource.create(attributes), chosen)
