"""compute.compile with the real compiler, on the CPU: the same numbers for every batch size."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.timeout(400)
def test_a_compiled_model_answers_the_same(start_agent: Callable[..., Any], files: Any) -> None:
    weights = files.weights("net.safetensors")
    model = files.model("net", entrypoint="model:Wrapped", weights=weights, compute={"compile": "default"})
    agent = start_agent({**model, "max_batch_size": 8})
    agent.until(lambda: agent.http.get("/readyz").status_code == 200, "compiled", seconds=300)
    for count in (1, 2, 3, 8):
        rows = [[0.1 * i, 0.2, -0.3, 0.4] for i in range(count)]
        answer = agent.predict("net", rows)
        assert answer.status_code == 200, answer.text
        assert np.allclose(answer.json()["predictions"], files.expected(rows), atol=1e-5)
