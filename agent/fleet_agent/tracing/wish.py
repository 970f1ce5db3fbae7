"""Whether traces are wanted: decided without importing anything of OpenTelemetry. PURE."""

from __future__ import annotations

from collections.abc import Mapping

from fleet_wire.agent import TelemetryConfig

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def wanted(config: TelemetryConfig, environment: Mapping[str, str]) -> bool:
    """By the configuration, or by the standard variables, which may also turn it off."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").lower() == "none":
        return False
    return config.otlp_endpoint is not None or any(environment.get(name) for name in _ENDPOINTS)
