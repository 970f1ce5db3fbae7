"""The peer everybody writes first: FastAPI, a pydantic body, one forward per request. Listens on the given port."""

from __future__ import annotations

import sys

import torch
import uvicorn
from bench.agent.models import MAKERS
from fastapi import FastAPI
from pydantic import BaseModel


class Body(BaseModel):
    instances: list[list[float]]


def application() -> FastAPI:
    app = FastAPI()
    networks = {name: make() for name, make in MAKERS.items()}

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
        application(),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
