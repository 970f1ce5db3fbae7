"""A tiny model for trying things out: an MLP with fixed random weights. Needs nothing but torch.

Options: `size` numbers in (default 4), `classes` numbers out (default 3), `hidden` (default 32), `delay_ms` sleeps that
long in each forward, as a heavier model would keep a device busy, and `work` repeats the hidden layer, which costs
real computing time.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

OPTIONS = {"size", "classes", "hidden", "delay_ms", "work"}


class Tiny:
    def load(self, device: torch.device, options: dict[str, Any]) -> None:
        unknown = sorted(set(options) - OPTIONS)
        if unknown:
            raise ValueError(f"unknown option {unknown[0]!r}; Tiny knows: {', '.join(sorted(OPTIONS))}")
        size, classes, hidden = (
            int(options.get(k, d)) for k, d in (("size", 4), ("classes", 3), ("hidden", 32))
        )
        self.delay_s = float(options.get("delay_ms", 0)) / 1000.0
        self.work = int(options.get("work", 1))
        self.size = size
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.ModuleList(
            [nn.Linear(size, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, classes)]
        )
        for parameter in self.layers.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
        self.layers.to(device).eval()
        self.inputs = [{"name": "INPUT", "datatype": "FP32", "shape": [-1, size]}]
        self.outputs = [{"name": "OUTPUT", "datatype": "FP32", "shape": [-1, classes]}]

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        first, hidden, last = self.layers
        x = torch.relu(first(batch))
        for _ in range(self.work):
            x = torch.relu(hidden(x))
        if self.delay_s:
            time.sleep(self.delay_s)
        scores: torch.Tensor = last(x)
        return scores

    def warmup(self) -> list[list[float]]:
        return [[0.0] * self.size]
