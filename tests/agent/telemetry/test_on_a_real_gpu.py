"""What only a GPU shows. `make test-gpu` runs it where there is one; elsewhere it is skipped."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or shutil.which("nvidia-smi") is None, reason="no NVIDIA GPU here"
    ),
]

MODEL = """
import torch


class Model:
    def load(self, device, options):
        torch.manual_seed(0)
        self.network = torch.nn.Sequential(
            torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 10)
        ).to(device).eval()
        self.ballast = torch.empty(int(options.get("ballast_mib", 0)) << 20, dtype=torch.uint8, device=device)
        self.item_mib = int(options.get("item_mib", 0))
        self.inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 256]}]

    def forward(self, batch):
        if self.item_mib:
            torch.empty(len(batch) * self.item_mib << 20, dtype=torch.uint8, device=batch.device)
        return self.network(batch)

    def warmup(self):
        return [] if self.item_mib else [[0.0] * 256]
"""


def nvidia_smi(*fields: str) -> list[float]:
    """Of the first GPU, in its own units."""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return [float(value) for value in next(csv.reader(io.StringIO(said)))]


@pytest.fixture
def model(written_model: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def make(**settings: Any) -> dict[str, Any]:
        return written_model("m", MODEL, **settings)

    return make


def test_memory_figures_are_nvidia_smi_s(
    start_agent: Callable[..., Any], model: Callable[..., dict[str, Any]]
) -> None:
    agent = start_agent(model(options={"ballast_mib": 4096}), device="cuda:0").ready()
    agent.until(lambda: agent.status()["devices"][0]["health"] == "healthy", "read")

    def agree() -> bool:
        [device] = agent.status()["devices"]
        used, total = (mib * 2**20 for mib in nvidia_smi("memory.used", "memory.total"))
        memory = device["memory"]
        return (
            abs(memory["used_bytes"] - used) <= 0.02 * used
            and abs(memory["total_bytes"] - total) <= 0.02 * total
        )

    agent.until(agree, "equal within 2 %", 20.0)
    [device] = agent.status()["devices"]
    assert device["memory"]["used_bytes"] > 4 << 30
    assert device["workers_bytes"] is not None
    assert device["workers_bytes"] >= 4 << 30
    assert device["uuid"].startswith(("GPU-", "MIG-"))
    [temperature] = nvidia_smi("temperature.gpu")
    assert abs(device["temperature_c"] - temperature) <= 10
    [served] = agent.status()["models"]
    assert served["device_memory_bytes"] >= 4 << 30


def test_a_real_out_of_memory_is_survived_and_learned(
    start_agent: Callable[..., Any], model: Callable[..., dict[str, Any]]
) -> None:
    bound = 3 << 30  # of which a batch of 8 x 512 MiB is too much
    many = model(options={"item_mib": 512}, max_batch_size=8)
    agent = start_agent(many, device="cuda:0", device_memory_total_bytes=bound).ready()
    worker = agent.worker()
    for _ in range(3):
        reply = agent.predict("m", [[0.5] * 256] * 8)
        assert reply.status_code == 200, reply.text
        assert len(reply.json()["predictions"]) == 8
    assert agent.worker() == worker
    assert agent.status()["models"][0]["max_batch_size"] < 8


@pytest.mark.parametrize(
    "compute",
    [
        {"cuda_graphs": True},
        {"pinned_memory": True},
        {"autocast": "bfloat16"},
        {"cuda_graphs": True, "pinned_memory": True, "dtype": "float16"},
    ],
)
def test_options_answer_as_without_them(
    start_agent: Callable[..., Any], model: Callable[..., dict[str, Any]], compute: dict[str, Any]
) -> None:
    plain = start_agent(model(), device="cuda:0").ready()
    tuned = start_agent(model(compute=compute), device="cuda:0").ready()
    for count in (1, 3, 8, 32):
        instances = [[(i + n) % 7 / 7.0 for n in range(256)] for i in range(count)]
        expected = torch.tensor(plain.predict("m", instances).json()["predictions"])
        found = torch.tensor(tuned.predict("m", instances).json()["predictions"])
        assert torch.allclose(found, expected, atol=2e-2), compute


def test_a_device_side_assert_costs_its_batch_and_the_next_worker_serves(
    start_agent: Callable[..., Any], written_model: Callable[..., dict[str, Any]]
) -> None:
    source = """
import torch


class Model:
    def load(self, device, options):
        self.table = torch.zeros(10, device=device)

    def forward(self, batch):
        return self.table[batch[:, 0].long()]
"""
    agent = start_agent(written_model("m", source), device="cuda:0").ready()
    assert agent.predict("m", [[3.0]]).status_code == 200
    assert agent.predict("m", [[1e6]]).status_code == 503
    agent.until(lambda: agent.predict("m", [[3.0]]).status_code == 200, "serving again")
    assert agent.status()["devices"][0]["health"] != "failed"  # Xid 13 or 43 are the program's
