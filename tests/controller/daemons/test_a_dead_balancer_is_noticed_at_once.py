"""The end of the balancer's process is known within a moment; a process that handed over has not been lost."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from fleet_controller.door.daemons import Process
from fleet_controller.door.watch import DoorWatch


class Door:
    """A process that stands for the balancer."""

    def __init__(self) -> None:
        self.child = subprocess.Popen(["sleep", "60"])
        self.process = Process.of(self.child.pid)
        self.lost = threading.Event()
        self.times = 0

    def find(self) -> Process | None:
        return self.process if self.process is not None and self.process.alive() else None

    def note(self) -> None:
        self.times += 1
        self.lost.set()

    def end(self) -> None:
        self.child.kill()
        self.child.wait()


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.end()


def test_a_killed_process_is_noticed_within_a_moment(door: Door) -> None:
    watch = DoorWatch(door.find, door.note)
    watch.start()
    time.sleep(0.1)
    assert not door.lost.is_set()
    killed_at = time.monotonic()
    door.end()
    assert door.lost.wait(5.0)
    assert time.monotonic() - killed_at < 1.0, "some milliseconds on a quiet machine"
    watch.stop()
    assert door.times == 1


def test_a_process_that_handed_over_is_not_lost_and_its_successor_is_watched(door: Door) -> None:
    watch = DoorWatch(door.find, door.note)
    watch.start()
    time.sleep(0.1)
    successor = Door()
    old, door.process = door.child, successor.process
    old.kill()
    old.wait()
    assert not door.lost.wait(0.3)
    successor.end()
    assert door.lost.wait(5.0)
    watch.stop()


def test_the_watch_ends_while_nothing_happens_and_while_there_is_nothing(door: Door) -> None:
    watch = DoorWatch(door.find, door.note)
    watch.start()
    time.sleep(0.1)
    watch.stop()
    door.process = None
    watch = DoorWatch(door.find, door.note)
    watch.start()
    watch.stop()
    assert door.times == 0


def test_what_goes_wrong_at_a_start_does_not_end_the_watch(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        door.note()
        raise OSError("no space left")

    watch = DoorWatch(door.find, fail)
    watch.start()
    time.sleep(0.1)
    door.end()
    assert door.lost.wait(5.0)
    watch.stop()
    assert "could not be started again" in caplog.text
