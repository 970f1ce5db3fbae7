"""The peer everybody writes first: FastAPI, a pydantic body, one forward per request.

`python -m bench.agent.peer_fastapi MODEL PORT`.
"""

from __future__ import annotations

import sys

import torch
import uvicorn
from bench.agent.models import MAKERS
from fastapi import FastAPI
from pydantic import BaseModel


class Body(BaseModel):
    instances: list[list[float]]


def application(model: str) -> FastAPI:
    app = FastAPI()
    networks = {model: MAKERS[model]()}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/models/{name}:predict")
    async def predict(name: str, body: Body) -> dict[str, list[list[float]]]:
        with torch.inference_mode():
            return {"predictions": networks[name](torch.tensor(body.instances)).tolist()}

    return app


if __name__ == "__main__":
    torch.set_num_threads(1)
    uvicorn.run(
        application(sys.argv[1]),
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
