"""The bare torch loop: samples a second at each batch size, nothing around it. Prints JSON."""

from __future__ import annotations

import json
import sys
import time

import torch
from bench.agent.models import MAKERS
from bench.agent.shape import SIZE

BATCHES = (1, 8, 16, 32, 64)


def rate(name: str, batch: int, seconds: float) -> float:
    network = MAKERS[name]()
    x = torch.randn(batch, SIZE)
    with torch.inference_mode():
        network(x)
        runs = 0
        started = time.perf_counter()
        while (took := time.perf_counter() - started) < seconds:
            network(x)
            runs += 1
    return runs * batch / took


if __name__ == "__main__":
    torch.set_num_threads(1)
    each = float(sys.argv[1])
    print(json.dumps({name: {batch: rate(name, batch, each) for batch in BATCHES} for name in MAKERS}))
