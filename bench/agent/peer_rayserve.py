"""Ray Serve with @serve.batch: `python -m bench.agent.peer_rayserve MODEL PORT`. POST / {"instance": [...]}."""

from __future__ import annotations

import signal
import sys
from typing import Any

import ray
import torch
from bench.agent.models import MAKERS
from bench.agent.shape import MAX_BATCH
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0.1})
class Served:
    def __init__(self, model: str) -> None:
        torch.set_num_threads(1)
        self.network = MAKERS[model]()
        self.scores.set_max_batch_size(MAX_BATCH[model])  # type: ignore[attr-defined]

    @serve.batch(batch_wait_timeout_s=0.005)
    async def scores(self, instances: list[list[float]]) -> list[list[float]]:
        with torch.inference_mode():
            rows: list[list[float]] = self.network(torch.tensor(instances)).tolist()
            return rows

    async def __call__(self, request: Request) -> dict[str, Any]:
        return {"predictions": await self.scores((await request.json())["instance"])}


if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, logging_level="error", configure_logging=True)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[2])}, logging_config={"log_level": "ERROR"}
    )
    serve.run(Served.bind(sys.argv[1]), route_prefix="/")
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, frame: stopped.append(signum))
    while not stopped:
        signal.pause()
    serve.shutdown()
    ray.shutdown()
