"""LitServe with batching: `python -m bench.agent.peer_litserve MODEL PORT`. POST /predict {"instance": [...]}."""

from __future__ import annotations

import sys
from typing import Any

import litserve
import torch
from bench.agent.models import MAKERS
from bench.agent.shape import MAX_BATCH


class Served(litserve.LitAPI):
    model = ""

    def setup(self, device: str) -> None:
        torch.set_num_threads(1)
        self.network = MAKERS[self.model]()

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe reads the annotation: none is JSON
        return torch.tensor(request["instance"], dtype=torch.float32)

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            scores: torch.Tensor = self.network(batch)
            return scores

    def encode_response(self, output: torch.Tensor) -> dict[str, Any]:
        return {"predictions": output.tolist()}


class Small(Served):
    model = "small"


class Medium(Served):
    model = "medium"


class Long(Served):
    model = "long"


if __name__ == "__main__":
    served = {"small": Small, "medium": Medium, "long": Long}[sys.argv[1]]
    api = served(max_batch_size=MAX_BATCH[served.model], batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(port=int(sys.argv[2]), num_api_servers=1, generate_client_file=False, log_level="warning")
