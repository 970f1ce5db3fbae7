"""Spans reach a collector over HTTP; without the option nothing of OpenTelemetry is even imported."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from fleet_agent.tracing.wish import wanted
from fleet_wire.agent import TelemetryConfig

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
ENGINE = Path(__file__).parents[1] / "outside" / "served_engine.py"


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP and keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        super().__init__(("127.0.0.1", 0), Receiver)

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            told = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.server.services.add(f"{told['service.name']}@{told['host.name']}")
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_with_its_queue_and_its_inference_below_the_caller_s_span(
    start_agent: Callable[..., Any],
    tiny_model: Callable[..., dict[str, Any]],
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    agent = start_agent(tiny_model(size=4), host="h1", telemetry={"otlp_endpoint": endpoint}).ready()
    caller = {"traceparent": f"00-{TRACE}-{SPAN}-01", "x_request_id": "r-1"}
    assert agent.predict("tiny", [[1, 2, 3, 4]], **caller).headers["x-request-id"] == "r-1"
    unrecorded = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
    assert agent.predict("tiny", [[1, 2, 3, 4]], **unrecorded).status_code == 200
    own = agent.predict("tiny", [[1, 2, 3, 4]]).headers["x-request-id"]
    # in two pieces: not the short way
    slow = agent.http.post("/v1/models/tiny:predict", content=iter([b'{"instances": ', b"[[1, 2, 3, 4]]}"]))
    assert agent.predict("tiny", [["x"]]).status_code == 400
    until(lambda: len(collector.named("tiny")) >= 4)
    agent.process.terminate()  # what is left is sent
    agent.process.wait(60)
    spans = {attributes(span)["fleet.request_id"]: span for span in collector.named("tiny")}
    assert len(spans) == 4
    first = spans["r-1"]
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (TRACE, SPAN)
    assert {own, slow.headers["x-request-id"]} <= set(spans)
    assert collector.services == {"fleet-agent@h1"}
    told = attributes(first)
    assert (told["fleet.model"], told["fleet.model.version"], told["fleet.batch_size"]) == ("tiny", "1", 1)
    below = [span for span in collector.spans if span.parent_span_id == first.span_id]
    queue, inference = sorted(below, key=lambda span: span.name, reverse=True)
    assert (queue.name, inference.name) == ("queue", "inference")
    assert first.start_time_unix_nano <= queue.start_time_unix_nano <= queue.end_time_unix_nano
    assert queue.end_time_unix_nano == inference.start_time_unix_nano
    assert inference.end_time_unix_nano <= first.end_time_unix_nano
    [refused] = [span for span in collector.named("tiny") if "fleet.refusal" in attributes(span)]
    assert attributes(refused)["fleet.refusal"] == "bad_request"


def test_a_call_to_an_outside_engine_has_its_spans_and_the_engine_hears_of_them(
    start_agent: Callable[..., Any], collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    command = {"argv": [sys.executable, str(ENGINE), "--port", "{port}"], "health_interval_s": 0.1}
    model = {"name": "llm", "path": "/nonexistent", "runtime": "command", "command": command}
    agent = start_agent(model, telemetry={"otlp_endpoint": endpoint}).ready()
    caller = {"traceparent": f"00-{TRACE}-{SPAN}-01", "x-request-id": "r-1", "x-fleet-model": "llm"}
    echoed = agent.http.post("/v1/free", content=b"hello", headers=caller).json()["headers"]
    until(lambda: collector.named("llm") and collector.named("inference"))
    (span,) = collector.named("llm")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    assert attributes(span)["fleet.request_id"] == "r-1"
    below = {each.name for each in collector.spans if each.parent_span_id == span.span_id}
    assert below == {"queue", "inference"}
    sent = {name.lower(): value for name, value in dict(echoed).items()}
    assert sent["traceparent"].split("-")[1:3] == [TRACE, span.span_id.hex()]


@pytest.mark.parametrize(
    ("config", "environment", "expected"),
    [
        ({}, {}, False),
        ({"otlp_endpoint": "http://c:4318"}, {}, True),
        ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({}, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"otlp_endpoint": "http://c:4318"}, {"OTEL_SDK_DISABLED": "true"}, False),
        ({"otlp_endpoint": "http://c:4318"}, {"OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_who_wants_traces(config: dict[str, str], environment: dict[str, str], expected: bool) -> None:
    assert wanted(TelemetryConfig(**config), environment) == expected


def test_nothing_is_imported_where_they_are_not_wanted() -> None:
    # FastAPI by itself imports the API of OpenTelemetry where that is installed; what does the work is the SDK.
    ours = (
        "m == 'fleet_agent.tracing.traces' or m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))"
    )
    program = f"import sys, fleet_agent.__main__; print([m for m in sys.modules if {ours}])"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=True)
    assert said.stdout.strip() == b"[]"
