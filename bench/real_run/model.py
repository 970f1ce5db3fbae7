"""A model that takes a known time for a batch and hardly any computing, so that several hosts can share a machine."""

from __future__ import annotations

import time
from typing import Any

import torch


class Paced:
    """Options: `base_ms` for a batch and `item_ms` for each item in it."""

    def load(self, device: torch.device, options: dict[str, Any]) -> None:
        self.base_s = float(options["base_ms"]) / 1000.0
        self.item_s = float(options["item_ms"]) / 1000.0
        self.inputs = [{"name": "INPUT", "datatype": "FP32", "shape": [-1, 1]}]
        self.outputs = [{"name": "OUTPUT", "datatype": "FP32", "shape": [-1, 1]}]

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        time.sleep(self.base_s + self.item_s * len(batch))
        return batch
