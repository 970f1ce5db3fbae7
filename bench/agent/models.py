"""The two models of the benchmark, for every subject the same.

Small: an MLP 256-512-256-10, well under a millisecond. Medium: a transformer encoder of four layers over 32 positions
of 256 numbers, about 10 ms at batch 1 on one quiet core.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .shape import SIZE


def small() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(SIZE, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)]
    return nn.Sequential(*layers).eval()


class Encoder(nn.Module):
    positions, width, depth = 32, 256, 4

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.Linear(SIZE // self.positions, self.width)
        layer = nn.TransformerEncoderLayer(self.width, 8, 4 * self.width, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, self.depth, enable_nested_tensor=False)
        self.head = nn.Linear(self.width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.spread(x.view(len(x), self.positions, -1))
        scores: torch.Tensor = self.head(self.layers(x).mean(dim=1))
        return scores


def medium() -> nn.Module:
    torch.manual_seed(0)
    return Encoder().eval()


MAKERS = {"small": small, "medium": medium}


class _Served:
    """As the agent wants it."""

    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, SIZE]}]
    outputs = [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}]
    name = ""

    def load(self, device: torch.device, options: dict[str, Any]) -> None:
        self.network = MAKERS[self.name]().to(device)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.network(batch)
        return scores

    def warmup(self) -> list[list[float]]:
        return [[0.0] * SIZE]


class Small(_Served):
    name = "small"


class Medium(_Served):
    name = "medium"
