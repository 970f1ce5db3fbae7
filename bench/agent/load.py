"""Closed-loop load: N keep-alive connections, each with one request in flight. Prints JSON.

`python -m bench.agent.load PORT MODEL FORM CONNECTIONS SECONDS`; FORM is json (V1) or binary (V2, binary tensors).
"""

from __future__ import annotations

import array
import asyncio
import json
import random
import sys
import time

import uvloop
from bench.agent.shape import SIZE

_WARM_S = 0.7


def request(model: str, form: str) -> bytes:
    values = [round(random.Random(0).uniform(-1, 1), 6) for _ in range(SIZE)]
    more = ""
    if form == "json":
        path, body = f"/v1/models/{model}:predict", json.dumps({"instances": [values]}).encode()
    else:
        raw = array.array("f", values).tobytes()
        tensor = {
            "name": "x",
            "datatype": "FP32",
            "shape": [1, SIZE],
            "parameters": {"binary_data_size": len(raw)},
        }
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        path, body = f"/v2/models/{model}/infer", head + raw
        more = f"inference-header-content-length: {len(head)}\r\n"
    fixed = "host: bench\r\ncontent-type: application/json\r\n"
    head = f"POST {path} HTTP/1.1\r\n{fixed}{more}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection(asyncio.Protocol):
    def __init__(self, payload: bytes, tally: Tally) -> None:
        self.payload = payload
        self.tally = tally
        self.pending = b""
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(self.payload)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.pending += data
        end = self.pending.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.pending[:end].lower()
        at = head.index(b"content-length: ") + 16
        length = int(head[at:].split(b"\r\n", 1)[0])
        if len(self.pending) < end + 4 + length:
            return
        self.tally.add(time.perf_counter() - self.sent, head.startswith(b"http/1.1 200"))
        self.pending = b""
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.tally.lost += 1


class Tally:
    def __init__(self) -> None:
        self.counting = False
        self.latencies: list[float] = []
        self.bad = 0
        self.lost = 0

    def add(self, seconds: float, good: bool) -> None:
        if self.counting:
            self.latencies.append(seconds)
            self.bad += not good


async def run(port: int, payload: bytes, connections: int, seconds: float) -> dict[str, float]:
    tally = Tally()
    loop = asyncio.get_running_loop()
    pairs = [
        await loop.create_connection(lambda: Connection(payload, tally), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.sleep(_WARM_S)
    tally.counting = True
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    tally.counting = False
    took = time.perf_counter() - started
    lost = tally.lost
    for transport, _ in pairs:
        transport.abort()
    ordered = sorted(tally.latencies)
    if not ordered or tally.bad or lost:
        raise SystemExit(f"{len(ordered)} answers, {tally.bad} of them not 200, {lost} connections lost")
    return {
        "throughput": len(ordered) / took,
        "p50": ordered[len(ordered) // 2] * 1000,
        "p99": ordered[int(len(ordered) * 0.99)] * 1000,
    }


if __name__ == "__main__":
    port, model, form, connections, seconds = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(int(port), request(model, form), int(connections), float(seconds)))))
