"""Where agents send traces."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from fleet_controller.spec.part import Part


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f'"{value[:70]}" is not the address of a collector; write "http://HOST:4318"')
    return value


class TelemetrySpec(Part):
    """Traces (OpenTelemetry), a span for each request; none, unless there is an endpoint."""

    otlp_endpoint: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        default=None,
        description='Collector that takes OTLP over HTTP, as "http://collector:4318"; none: no traces, unless '
        "the host's environment has the standard OTEL_EXPORTER_OTLP_ENDPOINT.",
    )
    sample: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of requests, of those that bring no decision of their own.",
    )
