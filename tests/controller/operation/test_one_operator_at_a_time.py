"""The operator lock: real processes on one machine, and holders of another one that live or are gone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_controller.journal import Journal
from fleet_controller.operation.holder import LEASE_S, Holder
from fleet_controller.operation.lock import Held, here, operator_lock, ourselves

HOLDS = """
import sys, time
from fleet_controller.journal import Journal
from fleet_controller.operation.lock import operator_lock
with operator_lock(Journal.open(sys.argv[1]), "fleetctl up"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture
def journal(url: str) -> Iterator[Journal]:
    opened = Journal.open(url)
    yield opened
    opened.close()


def holding(url: str, *before: str) -> subprocess.Popen[str]:
    """A process of its own that holds the lock."""
    child = subprocess.Popen(
        [*before, sys.executable, "-c", HOLDS, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def ended(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def elsewhere(beat: float, **changes: object) -> dict[str, object]:
    """A holder on another machine."""
    told = ourselves("fleetctl down").model_dump(mode="json")
    return {**told, "id": "theirs", "machine": "console-2", "place": "there", "beat": beat, **changes}


def test_the_second_is_told_who_holds_it_and_since_when(url: str, journal: Journal) -> None:
    child = holding(url)
    try:
        with pytest.raises(Held) as held, operator_lock(journal, "fleetctl down"):
            pytest.fail("two hold it")
        holder = held.value.holder
        assert (holder.pid, holder.command, holder.place) == (child.pid, "fleetctl up", here())
        told = holder.told(time.time(), lambda at: "14:03", lambda seconds: "2m")
        assert f"`fleetctl up` (process {child.pid}) since 14:03 (2m)" in told
        assert holder.machine in told and "kill -INT" in told
    finally:
        ended(child)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_whoever_holds_it_and_ends_leaves_none_behind(
    url: str, journal: Journal, number: signal.Signals
) -> None:
    child = holding(url)
    child.send_signal(number)
    child.communicate()
    began = time.monotonic()
    with operator_lock(journal, "fleetctl up"):
        assert time.monotonic() - began < 2.0
    assert journal.lock_holder() is None


def test_a_process_that_got_the_pid_of_a_dead_holder_is_not_the_holder(journal: Journal) -> None:
    theirs = elsewhere(time.time(), place=here(), pid=os.getpid(), ticks=1)
    assert journal.take_lock(theirs, lambda holder: False) is None
    with operator_lock(journal, "fleetctl up"):
        pass


def test_a_holder_elsewhere_that_gives_signs_of_life_keeps_it(journal: Journal) -> None:
    journal.take_lock(elsewhere(time.time() - LEASE_S / 2), lambda holder: False)
    with pytest.raises(Held), operator_lock(journal, "fleetctl up", watch_s=0.0):
        pass


def test_a_holder_elsewhere_that_gives_none_is_watched_and_then_gone(journal: Journal) -> None:
    journal.take_lock(elsewhere(time.time() - LEASE_S - 1.0), lambda holder: False)
    began = time.monotonic()
    with operator_lock(journal, "fleetctl up", watch_s=1.0) as hold:
        assert time.monotonic() - began >= 1.0
        found = journal.lock_holder()
        assert found is not None and found["id"] == hold.holder.id
    assert journal.lock_holder() is None


@pytest.mark.parametrize("apart", [-3600.0, 3600.0])
def test_a_clock_that_is_wrong_takes_the_lock_from_nobody(url: str, journal: Journal, apart: float) -> None:
    """Its signs look old or come from the future; that they come at all is what counts."""
    journal.take_lock(elsewhere(time.time() + apart), lambda holder: True)
    over = threading.Event()

    def beat() -> None:
        theirs = Journal.open(url)
        while not over.wait(0.1):
            theirs.beat_lock("theirs", time.time() + apart)
        theirs.close()

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(Held), operator_lock(journal, "fleetctl up", watch_s=8.0):
            pass
    finally:
        over.set()
        thread.join()


def test_who_lost_it_learns_so_and_takes_nothing_from_the_new_holder(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet_controller.operation.lock.BEAT_S", 0.05)
    with operator_lock(journal, "fleetctl up") as hold:
        journal.take_lock(elsewhere(time.time()), lambda holder: True)
        deadline = time.monotonic() + 10.0
        while not hold.lost():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    found = journal.lock_holder()
    assert found is not None and found["id"] == "theirs"


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_a_container_on_this_machine_is_another_place(url: str, journal: Journal) -> None:
    """Its process ids say nothing here: while it lives it holds the lock, whatever runs here under that number."""
    child = holding(url, "unshare", "--pid", "--fork", "--kill-child")
    try:
        with pytest.raises(Held) as held, operator_lock(journal, "fleetctl up", watch_s=0.0):
            pass
        assert held.value.holder.place != here()
        assert held.value.holder.pid < 10
    finally:
        ended(child)


@given(beat=st.floats(-1e6, 1e6), same=st.booleans(), runs=st.booleans())
def test_only_who_is_seen_to_be_gone_counts_as_dead(beat: float, same: bool, runs: bool) -> None:
    holder = Holder(
        id="x", user="u", machine="m", place="a", pid=1, ticks=1, command="c", since=0.0, beat=beat
    )
    verdict = holder.verdict("a" if same else "b", 0.0, lambda pid, ticks: runs)
    if same:
        assert verdict == ("alive" if runs else "dead")
    else:
        assert verdict == ("alive" if abs(beat) <= LEASE_S else "silent")
