"""Balancers here carry their requests by a real HAProxy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest


def through_haproxy(start: Callable[..., Any]) -> Callable[..., Any]:
    def start_it(*arguments: str, **named: Any) -> Any:
        return start("--engine", "haproxy", *arguments, **named)

    return start_it


@pytest.fixture
def balancer(balancer: Callable[..., Any]) -> Callable[..., Any]:
    return through_haproxy(balancer)


@pytest.fixture(scope="module")
def started() -> dict[str, tuple[Any, Any]]:
    return {}


@pytest.fixture
def shared(
    request: pytest.FixtureRequest,
    started: dict[str, tuple[Any, Any]],
    starters: Any,
    wait_until_healthy: Callable[..., None],
) -> tuple[Any, Any]:
    """One origin behind one balancer, for those tests of one file that change neither."""
    file = request.function.__code__.co_filename
    if file not in started:
        origin, balancer = starters
        host = origin(f"a{len(started)}" if started else "a")
        front = through_haproxy(balancer)("--backends", host.address)
        wait_until_healthy(front, host.address)
        started[file] = host, front
    return started[file]


@pytest.fixture(scope="module")
def wait_until_healthy() -> Callable[..., None]:
    def wait(front: Any, *names: str) -> None:
        until = time.monotonic() + 10
        while not all(front.backend(name)["healthy"] for name in names):
            assert time.monotonic() < until, "not healthy within 10 s"
            time.sleep(0.02)

    return wait
