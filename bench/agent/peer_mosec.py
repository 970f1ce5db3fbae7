"""Mosec: a Rust front and one worker process per route. `python -m bench.agent.peer_mosec --port P`, Mosec's own flags.

Routes /MODEL/json (its default, the standard library's json), /MODEL/orjson and /MODEL/raw (float32 in and out).
ROUTES in the environment chooses among them, WAIT_MS is its max_wait_time.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import orjson
import torch
from bench.agent.models import MAKERS
from bench.agent.shape import MAX_BATCH
from mosec import Runtime, Server, Worker


class Json(Worker):
    model = ""

    def __init__(self) -> None:
        super().__init__()
        torch.set_num_threads(1)
        self.network = MAKERS[self.model]()

    def forward(self, data: list[Any]) -> list[Any]:
        with torch.inference_mode():
            return list(self.network(torch.from_numpy(np.array(data, dtype=np.float32))).tolist())


class Orjson(Json):
    def deserialize(self, data: bytes) -> Any:
        return orjson.loads(data)

    def serialize(self, data: Any) -> bytes:
        return orjson.dumps(data)


class Raw(Json):
    def deserialize(self, data: bytes) -> Any:
        return np.frombuffer(data, dtype=np.float32)

    def serialize(self, data: Any) -> bytes:
        raw: bytes = data.tobytes()
        return raw

    def forward(self, data: list[Any]) -> list[Any]:
        with torch.inference_mode():
            return list(self.network(torch.from_numpy(np.stack(data))).numpy())


class SmallJson(Json):
    model = "small"


class SmallOrjson(Orjson):
    model = "small"


class SmallRaw(Raw):
    model = "small"


class MediumJson(Json):
    model = "medium"


class MediumOrjson(Orjson):
    model = "medium"


class MediumRaw(Raw):
    model = "medium"


class LongJson(Json):
    model = "long"


class LongOrjson(Orjson):
    model = "long"


class LongRaw(Raw):
    model = "long"


WORKERS = {
    "small/json": SmallJson,
    "small/orjson": SmallOrjson,
    "small/raw": SmallRaw,
    "medium/json": MediumJson,
    "medium/orjson": MediumOrjson,
    "medium/raw": MediumRaw,
    "long/json": LongJson,
    "long/orjson": LongOrjson,
    "long/raw": LongRaw,
}

if __name__ == "__main__":
    wait_ms = int(os.environ.get("WAIT_MS", "5"))
    chosen = os.environ.get("ROUTES", " ".join(WORKERS)).split()
    server = Server()
    server.register_runtime(
        {
            f"/{name}": [
                Runtime(
                    WORKERS[name],
                    num=1,
                    max_batch_size=MAX_BATCH[WORKERS[name].model],
                    max_wait_time=wait_ms,
                )
            ]
            for name in chosen
        }
    )
    server.run()
