"""The models of the benchmark, for every subject the same.

Small: an MLP 256-512-256-10, well under a millisecond. Medium: a transformer encoder of 25 million parameters over
short sequences, about 15 ms at batch 1 on one quiet core; most of that is reading the weights, so a batch of 32 or 64
does about ten times as much a second. Long: one of 3 million over 32 positions, about 5 ms at batch 1, nearly all of it
arithmetic: a batch gains little, whoever forms it.
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
    def __init__(self, positions: int, width: int, depth: int) -> None:
        super().__init__()
        self.positions = positions
        self.spread = nn.Linear(SIZE // positions, width)
        layer = nn.TransformerEncoderLayer(width, 8, 4 * width, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.spread(x.view(len(x), self.positions, -1))
        scores: torch.Tensor = self.head(self.layers(x).mean(dim=1))
        return scores


def medium() -> nn.Module:
    torch.manual_seed(0)
    return Encoder(positions=2, width=640, depth=5).eval()


def long() -> nn.Module:
    torch.manual_seed(0)
    return Encoder(positions=32, width=256, depth=4).eval()


MAKERS = {"small": small, "medium": medium, "long": long}


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


class Long(_Served):
    name = "long"
