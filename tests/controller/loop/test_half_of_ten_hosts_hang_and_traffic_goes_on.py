"""Half of ten hosts hang at once: nobody is stopped or started in their place, and the others answer what comes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from conftest import Fleet

MakeFleet = Callable[..., "Fleet"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


class Clients(threading.Thread):
    """A request each 50 ms, whatever became of those before: when it was sent, and its status or what went wrong."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url, self._over = url, threading.Event()
        self.sent: list[tuple[float, int | str]] = []

    def run(self) -> None:
        workers = []
        while not self._over.wait(0.05):
            workers.append(threading.Thread(target=self._one))
            workers[-1].start()
        for worker in workers:
            worker.join()

    def _one(self) -> None:
        began = time.monotonic()
        status: int | str
        try:
            status = httpx.post(self._url, json={"instances": [1]}, timeout=60).status_code
        except httpx.HTTPError as error:
            status = f"{error!r} after {time.monotonic() - began:.1f} s"
        self.sent.append((began, status))

    def end(self) -> None:
        self._over.set()
        self.join()


def test_nothing_is_stopped_and_who_comes_is_answered(fleet: MakeFleet) -> None:
    one = fleet(hosts=10, min_servers=10)
    one.spec["controller"].update(unreachable_after="3s")
    one.change()
    one.daemon()
    one.until(lambda: one.count("ready") == 10, "ten ready", 120)
    one.until(lambda: (one.journal.status() or {}).get("endpoint"), "the endpoint")
    before = one.agents()
    status = one.journal.status()
    assert status is not None
    clients = Clients(f"{status['endpoint']}/v1/models/tiny:predict")
    clients.start()
    lost = [pid for host in "abcde" for pid in before[host]]
    try:
        time.sleep(2)
        for pid in lost:
            os.kill(pid, signal.SIGSTOP)
        hung = time.monotonic()
        one.until(lambda: one.events("mass_loss"), "it is said", 60)
        time.sleep(15)
    finally:
        for pid in lost:
            os.kill(pid, signal.SIGCONT)
        clients.end()
    assert "5 of 10 hosts are out of sight" in one.events("mass_loss")[0].reason
    assert one.agents() == before
    assert one.events("draining") == one.events("stopping") == []
    assert len(one.events("booting")) == 10
    # The balancer's checks take 4 s to be sure; who was with a hung host until then waits until it goes on.
    later = [status for at, status in clients.sent if at > hung + 5]
    assert len(later) > 50 and set(later) == {200}, later
    failed = [status for _, status in clients.sent if status != 200]
    assert failed == [], [event.reason for event in one.events("balancer")]
    one.until(lambda: one.count("ready") == 10, "all ready again")
