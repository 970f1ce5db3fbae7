"""The bare torch loop: samples a second at each batch size, nothing around it. Prints JSON.

`python -m bench.agent.bare MODEL SECONDS`; `expected` is what the model makes of the load's first input.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from bench.agent import wire
from bench.agent.models import MAKERS
from bench.agent.shape import SIZE
from torch import nn

BATCHES = (1, 8, 16, 32, 64)


def rate(network: nn.Module, batch: int, seconds: float) -> float:
    x = torch.randn(batch, SIZE)
    network(x)
    runs = 0
    started = time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        network(x)
        runs += 1
    return runs * batch / took


if __name__ == "__main__":
    torch.set_num_threads(1)
    network, each = MAKERS[sys.argv[1]](), float(sys.argv[2])
    with torch.inference_mode():
        rates = {batch: rate(network, batch, each) for batch in BATCHES}
        expected = network(torch.tensor([wire.values(0)]))[0].tolist()
    print(json.dumps({"rates": rates, "expected": expected}))
