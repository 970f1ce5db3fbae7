"""A model whose answers tell its version, and clients that keep asking while versions come and go."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

# Answers its number, which the tests make the same as its version.
NUMBERED = """
import os
import time
import torch

class Model:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}]
    outputs = [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}]

    def load(self, device, options):
        self.number = float(options["number"])
        self.pause = float(options.get("pause_ms", 0)) / 1000
        self.ballast = torch.ones(int(options.get("mebibytes", 0)) * 2**18)
        time.sleep(float(options.get("load_s", 0)))
        if options.get("load") == "raises":
            raise RuntimeError("no such weights")
        if options.get("load") == "kills":
            os.kill(os.getpid(), 9)
        if options.get("load") == "exits":
            raise SystemExit(3)

    def forward(self, batch):
        time.sleep(self.pause)
        if self.pause < 0:
            raise RuntimeError("not computed")
        return torch.full_like(batch, self.number)

    def warmup(self):
        if self.number < 0:
            raise RuntimeError("cold")
        return [[0.0]]
"""


@pytest.fixture(scope="session")
def numbered(written_model) -> Callable[..., dict[str, Any]]:
    """Makes the configuration of one version; what ends in _ belongs to the model, the rest are its options."""
    folder = written_model("numbered", NUMBERED)["path"]

    def make(version: str, name: str = "m", **settings: Any) -> dict[str, Any]:
        own = {key[:-1]: value for key, value in settings.items() if key.endswith("_")}
        options = {key: value for key, value in settings.items() if not key.endswith("_")}
        options = {"number": int(version), **options}
        return {
            "name": name,
            "version": version,
            "path": folder,
            "entrypoint": "model:Model",
            "options": options,
            **own,
        }

    return make


@pytest.fixture(scope="session")
def change() -> Callable[..., httpx.Response]:
    """Asks an agent for a change of its models."""

    def ask(agent: Any, **body: Any) -> httpx.Response:
        return agent.http.post("/admin/models", json=body)

    return ask


@pytest.fixture(scope="session")
def states() -> Callable[[Any], dict[str, str]]:
    """version -> state of an agent's model m."""

    def look(agent: Any) -> dict[str, str]:
        listed = agent.http.get("/admin/models").json()["models"]
        return {entry["version"]: entry["state"] for entry in listed if entry["name"] == "m"}

    return look


@pytest.fixture(scope="session")
def asking() -> type[Asking]:
    return Asking


class Asking:
    """`clients` clients on a connection each, which ask one thing after another until `done`.

    `answers`: by client (status, the version in the header, the number in the answer).
    """

    def __init__(self, agent: Any, clients: int, path: str = "/v1/models/m:predict") -> None:
        self._agent = agent
        self._path = path
        self._enough = threading.Event()
        self.answers: list[list[tuple[int, str | None, float | None]]] = [[] for _ in range(clients)]
        self.said: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(seen,)) for seen in self.answers]

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        self.each_saw(3)
        return self

    def __exit__(self, *_: object) -> None:
        self.done()

    def each_saw(self, more: int) -> None:
        """Returns when every client has so many answers more."""
        wanted = [len(seen) + more for seen in self.answers]
        self._agent.until(
            lambda: all(len(seen) >= n for seen, n in zip(self.answers, wanted, strict=True)), "answering"
        )

    def done(self) -> list[list[tuple[int, str | None, float | None]]]:
        self._enough.set()
        for thread in self._threads:
            thread.join()
        return self.answers

    def _ask(self, seen: list[tuple[int, str | None, float | None]]) -> None:
        with httpx.Client(base_url=self._agent.url, timeout=60) as http:
            while not self._enough.is_set():
                reply = http.post(self._path, json={"instances": [[0.0]]})
                number = reply.json()["predictions"][0][0] if reply.status_code == 200 else None
                if number is None:
                    self.said.append(reply.text)
                seen.append((reply.status_code, reply.headers.get("x-fleet-model-version"), number))
