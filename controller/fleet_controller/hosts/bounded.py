"""A time limit for calls that have none of their own: name resolution, the SSH agent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def bounded(work: Callable[[], T], timeout_s: float) -> T:
    """`work()`, or TimeoutError after `timeout_s`; the thread ends when the call does."""
    result: list[T] = []
    error: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as failure:  # handed to the caller's thread
            error.append(failure)

    thread = threading.Thread(target=run, daemon=True, name="fleetctl-bounded")
    thread.start()
    thread.join(timeout_s)
    if error:
        raise error[0]
    if not result:
        raise TimeoutError(f"no answer within {timeout_s:g} s")
    return result[0]
