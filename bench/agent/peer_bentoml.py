"""BentoML with adaptive batching: `python -m bentoml serve bench.agent.peer_bentoml:Small --port P`.

POST /predict {"instances": [[...]]}; its own adaptive batching decides how long a request waits.
"""

from __future__ import annotations

import bentoml
import numpy as np
import torch
from bench.agent.models import MAKERS
from bench.agent.shape import MAX_BATCH


class Served:
    model = ""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.network = MAKERS[self.model]()

    def scores(self, instances: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            scores: np.ndarray = self.network(torch.from_numpy(instances.astype(np.float32))).numpy()
            return scores


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1024})
class Small(Served):
    model = "small"

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH["small"], max_latency_ms=1000)
    def predict(self, instances: np.ndarray) -> np.ndarray:
        return self.scores(instances)


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1024})
class Medium(Served):
    model = "medium"

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH["medium"], max_latency_ms=1000)
    def predict(self, instances: np.ndarray) -> np.ndarray:
        return self.scores(instances)


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1024})
class Long(Served):
    model = "long"

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH["long"], max_latency_ms=1000)
    def predict(self, instances: np.ndarray) -> np.ndarray:
        return self.scores(instances)
