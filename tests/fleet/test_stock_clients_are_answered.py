"""Clients that know nothing of us: curl, and Triton's own Python client, through the balancer."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

pytestmark = pytest.mark.fleet


@pytest.mark.slow
async def test_curl_and_tritonclient_get_answers_and_status_tells_the_latency_clients_saw(
    fleet: Any, local_hosts: str
) -> None:
    fleet.write(
        local_hosts,
        {"min_servers": 1, "max_servers": 3, "latency": {"target_ms": 5000}},
        # Long enough that what the client itself takes is well below the 5 % that are allowed.
        model={"options": {"delay_ms": 250}, "batching": {"max_batch_size": 16}},
    )
    fleet.cli("up")
    endpoint = fleet.endpoint

    argv = ["curl", "-sS", f"{endpoint}/v1/models/tiny:predict", "-d", '{"instances": [[1, 2, 3, 4]]}']
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=True)
    (curled,) = json.loads(done.stdout)["predictions"]
    assert len(curled) == 3

    with triton.InferenceServerClient(endpoint.removeprefix("http://")) as client:
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        tensor = triton.InferInput("INPUT", [1, 4], "FP32")
        tensor.set_data_from_numpy(np.array([[1, 2, 3, 4]], dtype=np.float32), binary_data=False)
        wanted = [triton.InferRequestedOutput("OUTPUT", binary_data=False)]
        (inferred,) = client.infer("tiny", [tensor], outputs=wanted).as_numpy("OUTPUT")
    assert np.allclose(inferred, curled, atol=1e-5)

    async with fleet.load(rate=30) as load:
        await asyncio.sleep(15)
    assert not load.failed, load.failed[:3]
    await asyncio.sleep(2.5)  # two ticks, so that the last requests are in the picture
    told = fleet.pool()["latency_ms"]
    for name, q in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99)):
        assert told[name] == pytest.approx(load.percentile(q), rel=0.05), (name, told, load.percentile(q))
