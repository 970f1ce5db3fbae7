"""The model `affine`, whose every answer is a function of its request, and clients of it in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

LOAD = Path(__file__).with_name("load.py")

# y = (2 a + 1, b - c) of a row (a, b, c, d). Poisoned where d is -1. More rows than `holds` are out of memory.
# With `record`, a line for each batch: when it began, and the first number of each row.
AFFINE = """
import time
import torch

class Model:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    outputs = [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]

    def load(self, device, options):
        self.holds = int(options.get("holds", 1 << 30))
        self.pause_s = float(options.get("pause_ms", 0)) / 1000
        self.record = open(options["record"], "a", buffering=1) if "record" in options else None

    def forward(self, batch):
        began = time.monotonic()
        if self.record is not None:
            print(began, *(int(a) for a in batch[:, 0]), file=self.record)
        if len(batch) > self.holds:
            raise torch.OutOfMemoryError("simulated")
        if self.pause_s:
            time.sleep(self.pause_s)
        if (batch[:, 3] == -1).any():
            raise RuntimeError("poisoned")
        return torch.stack([batch[:, 0] * 2 + 1, batch[:, 1] - batch[:, 2]], dim=1)
"""


class Clients:
    """A load that runs."""

    def __init__(self, order: dict[str, Any]) -> None:
        argv = [sys.executable, str(LOAD)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order))
        self.process.stdin.close()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def result(self) -> dict[str, Any]:
        """What they saw, once they are done."""
        assert self.process.stdout is not None
        said = self.process.stdout.read()
        self.process.stdout.close()
        assert self.process.wait(60) == 0
        seen: dict[str, Any] = json.loads(said)
        return seen


Load = Callable[..., Clients]


@pytest.fixture
def load() -> Iterator[Load]:
    """`load(agent, kind=..., ...)` starts clients; see load.py for the orders."""
    made: list[Clients] = []

    def start(agent: Any, **order: Any) -> Clients:
        made.append(Clients({"port": int(agent.url.rpartition(":")[2]), **order}))
        return made[-1]

    yield start
    for clients in made:
        clients.process.kill()
        clients.process.wait()


@pytest.fixture
def affine(written_model: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """`affine(pause_ms=..., holds=..., record=...)`; what ends in _ belongs to the model, not to its options."""

    def make(**settings: Any) -> dict[str, Any]:
        own = {key[:-1]: value for key, value in settings.items() if key.endswith("_")}
        options = {key: value for key, value in settings.items() if not key.endswith("_")}
        return written_model("affine", AFFINE, options=options, **own)

    return make
