"""Clients that send a request and leave: what had not begun on the device when they left is not computed."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LONG = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]
BODY = b'{"instances": [[%d.0, 2.0, 3.0, 4.0]]}'
HEAD = b"POST /v1/models/affine:predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"


def begun(record: Path) -> dict[int, float]:
    """When the batch began in which each number was computed, in seconds of the monotonic clock."""
    lines = [line.split() for line in record.read_text().splitlines()]
    return {int(number): float(at) for at, *numbers in lines for number in numbers}


@pytest.mark.parametrize(("waves", "most"), [(2, 0.06), pytest.param(20, 0.01, marks=LONG)])
def test_next_to_nothing(
    start_agent: Callable[..., Any],
    affine: Callable[..., dict[str, Any]],
    tmp_path: Path,
    waves: int,
    most: float,
) -> None:
    record = tmp_path / "record"
    agent = start_agent(affine(pause_ms=20, record=str(record), max_batch_size_=8)).ready()
    address = ("127.0.0.1", int(agent.url.rpartition(":")[2]))
    left: dict[int, float] = {}
    number = 0
    order = random.Random(waves)
    for _ in range(waves):
        opened = []
        for _ in range(250):
            number += 1
            body = BODY % number
            client = socket.create_connection(address, timeout=30)
            client.sendall(HEAD % len(body) + body)
            opened.append((number, client))
        agent.until(lambda: agent.status()["queued"] > 100, "queued", 10)
        # In any order; half of them at once, half one by one while batches come and go.
        order.shuffle(opened)
        for at, (n, client) in enumerate(opened):
            if at > len(opened) // 2:
                time.sleep(0.001)
            left[n] = time.monotonic()
            client.close()
        agent.until(lambda: agent.status()["in_flight"] == agent.status()["queued"] == 0, "settled", 30)
    assert (
        agent.predict("affine", [[0.0, 2.0, 3.0, 4.0]]).status_code == 200
    )  # what had begun is written down

    computed = begun(record)
    answered = sum(n in computed and computed[n] + 0.02 < left[n] for n in left)
    running = sum(n in computed and computed[n] <= left[n] <= computed[n] + 0.02 for n in left)
    late = sorted(
        round(1000 * (computed[n] - left[n]), 1) for n in left if n in computed and computed[n] > left[n]
    )
    abandoned = len(left) - answered
    told = (
        f"{len(left)} left, {answered} after their batch, {running} while it ran, {len(late)} before it began"
    )
    share = f"{100 * len(late) / abandoned:.2f} % of {abandoned} computed for nobody, begun {late} ms after they left"
    print(f"{told}: {share}")
    assert abandoned > 0.7 * len(left)
    assert len(late) < most * abandoned, told + share
