"""Start once, find from any process, never take another process for ours, stop and prove it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet_controller.door.daemons import Daemon, DaemonError, Process
from fleet_controller.statefolder import StateFolder

SLEEPER = """
import json, os, pathlib, signal, sys, time
ready = pathlib.Path(sys.argv[sys.argv.index("--ready-file") + 1])
with (ready.parent / "starts").open("a") as file:
    file.write(f"{os.getpid()}\\n")
if "--stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
ready.with_suffix(".new").write_text(json.dumps({"pid": os.getpid(), "listen": "here"}))
ready.with_suffix(".new").replace(ready)
time.sleep(60)
"""


class Sleeper(Daemon):
    """A daemon that does nothing; `starts` are the processes that it ever was."""

    def __init__(self, folder: Path, *options: str) -> None:
        program = folder / "sleeper.py"
        # in one piece: a program that others just start must not be found empty
        fresh = folder / f"sleeper.{threading.get_ident()}.new"
        fresh.write_text(SLEEPER)
        fresh.replace(program)
        super().__init__("sleeper", StateFolder(folder, ""), [sys.executable, "-S", str(program), *options])
        self.folder = folder

    @property
    def starts(self) -> list[int]:
        return [int(line) for line in (self.folder / "starts").read_text().split()]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    if (tmp_path / "starts").exists():
        for line in (tmp_path / "starts").read_text().split():
            try:
                if str(tmp_path).encode() in Path(f"/proc/{line}/cmdline").read_bytes():
                    os.kill(int(line), signal.SIGKILL)
                os.waitpid(int(line), 0)
            except (OSError, ChildProcessError):
                pass


def test_it_is_started_once_and_found_again(folder: Path) -> None:
    assert Sleeper(folder).find() is None
    assert Sleeper(folder).ensure()
    again = Sleeper(folder)
    assert not again.ensure()
    found = again.find()
    assert found is not None
    assert [found.pid] == again.starts
    assert again.ready() == {"pid": found.pid, "listen": "here"}
    assert os.getsid(found.pid) == found.pid  # it outlives the terminal
    assert again.log_file.stat().st_mode & 0o777 == 0o600
    assert again.stop(5.0)
    assert not found.alive()
    assert again.find() is None
    assert again.ready() == {}
    assert not again.stop(5.0)


def test_eight_who_want_it_at_once_get_one(folder: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        started = list(threads.map(lambda _: Sleeper(folder).ensure(), range(8)))
    assert sum(started) == 1
    assert len(Sleeper(folder).starts) == 1


def test_a_dead_one_is_started_anew(folder: Path) -> None:
    one = Sleeper(folder)
    one.ensure()
    os.kill(one.starts[0], signal.SIGKILL)
    until_gone(one)
    assert one.ensure()
    assert len(one.starts) == 2


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "another boot"}])
def test_a_later_process_with_its_pid_is_not_taken_for_it(folder: Path, change: dict[str, object]) -> None:
    one = Sleeper(folder)
    mine = Process.of(os.getpid())
    assert mine is not None
    said = {"pid": mine.pid, "start_ticks": mine.start_ticks, "boot_id": mine.boot_id}
    (folder / "sleeper.pid").write_text(json.dumps(said))
    assert one.find() == mine
    (folder / "sleeper.pid").write_text(json.dumps(said | change))
    (folder / "sleeper.json").write_text(json.dumps({"pid": mine.pid}))
    assert one.find() is None
    assert not one.stop(1.0)  # and this test still runs


@pytest.mark.parametrize("text", ["", "{", "null", '{"pid": "x"}', '{"pid": 1, "more": 2}'])
def test_a_broken_pid_file_is_none(folder: Path, text: str) -> None:
    (folder / "sleeper.pid").write_text(text)
    assert Sleeper(folder).find() is None


def test_one_whose_starter_was_killed_before_it_noted_the_pid_is_found(folder: Path) -> None:
    one = Sleeper(folder)
    one.ensure()
    (folder / "sleeper.pid").unlink()
    found = Sleeper(folder).find()
    assert found is not None
    assert [found.pid] == one.starts
    assert not Sleeper(folder).ensure()
    assert Sleeper(folder).stop(5.0)
    assert not found.alive()


def test_one_that_was_taken_over_is_found_as_its_successor_and_both_are_stopped(folder: Path) -> None:
    one = Sleeper(folder)
    one.ensure()
    old = one.find()
    later = subprocess.Popen([*one.argv, "--ready-file", str(one.ready_file)], start_new_session=True)
    deadline = time.monotonic() + 10
    while one.ready()["pid"] != later.pid and time.monotonic() < deadline:
        time.sleep(0.01)
    found = one.find()
    assert old is not None and found is not None
    assert (found.pid, old.alive(), one.ensure()) == (later.pid, True, False)
    assert one.stop(5.0)
    assert not old.alive() and not found.alive()
    later.wait()


def test_what_it_reads_as_it_starts_is_put_there_before_and_only_then(folder: Path) -> None:
    one = Sleeper(folder)
    prepared: list[bool] = []
    with_file = Daemon("sleeper", StateFolder(folder, ""), one.argv, lambda: prepared.append(True))
    assert with_file.find() is None and not prepared
    assert with_file.ensure() and not with_file.ensure()
    assert prepared == [True]
    assert with_file.stop(5.0)

    def fails() -> None:
        raise PermissionError(13, "Permission denied", "balancer.config.json")

    with pytest.raises(DaemonError, match=r"the sleeper can't be configured: .*Permission denied"):
        Daemon("sleeper", StateFolder(folder, ""), one.argv, fails).ensure()


def test_one_that_will_not_end_is_killed(folder: Path) -> None:
    one = Sleeper(folder, "--stubborn")
    one.ensure()
    found = one.find()
    assert found is not None
    began = time.monotonic()
    assert one.stop(0.3)
    assert time.monotonic() - began >= 0.3
    assert not found.alive()


def test_one_that_dies_at_once_says_its_last_words(folder: Path) -> None:
    argv = [sys.executable, "-S", "-c", "import sys; print('no such option'); sys.exit(3)"]
    with pytest.raises(DaemonError, match="the broken ended with status 3: no such option"):
        Daemon("broken", StateFolder(folder, ""), argv).ensure()


def test_one_that_is_never_ready_is_told(folder: Path) -> None:
    argv = [sys.executable, "-S", "-c", "import time; time.sleep(30)"]
    slow = Daemon("slow", StateFolder(folder, ""), argv)
    with pytest.raises(DaemonError, match=r"the slow was not ready in 0 s: nothing in .*slow\.log"):
        slow.ensure(0.2)
    assert slow.stop(5.0)


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["true"])
    deadline = time.monotonic() + 10
    while Process.of(child.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert Process.of(child.pid) is None
    child.wait()


def until_gone(one: Daemon) -> None:
    deadline = time.monotonic() + 10
    while one.find() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
