"""What depends on the process itself: signals, terminals, pipes and start-up. Run as real processes."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading

import pytest

FLEETCTL = [sys.executable, "-m", "fleetctl"]
SGR = re.compile(rb"\x1b\[[0-9;]*m")
HEAVY = ("sqlalchemy", "alembic", "paramiko", "rich", "ruamel", "pydantic")


@pytest.fixture
def serving(stage):
    stage.journal.set_goal("up")
    stage.bring_up("gpu-a")
    stage.journal.write_status(stage.picture())
    return stage


def interrupt_after(arguments: list[str], words: str) -> tuple[int, str]:
    """Press Ctrl-C once stderr or stdout has said `words`."""
    child = subprocess.Popen(
        [*FLEETCTL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )
    assert child.stdout is not None
    said = ""
    guard = threading.Timer(30, child.kill)
    guard.start()
    for text in child.stdout:
        said += text
        if words in text:
            child.send_signal(signal.SIGINT)
            break
    said += child.stdout.read()
    child.stdout.close()
    guard.cancel()
    return child.wait(), said


def on_terminal(arguments: list[str], **environment: str) -> bytes:
    """All that the command writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [*FLEETCTL, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "160", "LINES": "40", **environment},
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # a closed terminal reads as EIO
        while chunk := os.read(ours, 65536):
            written += chunk
    os.close(ours)
    child.wait()
    return written


def test_ctrl_c_during_up_says_what_goes_on(stage):
    stage.goes_up(then=lambda: stage.move("gpu-a", "booting"))
    code, said = interrupt_after(["up"], "booting")
    assert code == 130
    assert "the controller goes on bringing the fleet up" in said
    assert "wait again with `fleetctl up`" in said
    assert "Traceback" not in said


def test_ctrl_c_while_watching_or_following(serving):
    for arguments, words in (
        (["status", "--watch"], "gpu-a"),
        (["events", "-f"], "ready"),
        (["logs", "controller", "-f"], "line 2"),
    ):
        code, said = interrupt_after(arguments, words)
        assert code == 130, said
        assert said.endswith("the fleet goes on\n"), said


def test_a_request_that_nobody_answered_is_taken_back_on_ctrl_c(serving):
    child = subprocess.Popen([*FLEETCTL, "uncordon", "gpu-a"], stderr=subprocess.PIPE, text=True)
    while not serving.asked:
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "the request was taken back" in said
    assert serving.journal.asked() == []


def test_colour_on_a_terminal_and_none_with_no_color(serving):
    assert SGR.search(on_terminal(["status"], NO_COLOR=""))
    for arguments in (["status"], ["hosts"], ["events"]):
        assert not SGR.search(on_terminal(arguments, NO_COLOR="1"))


def test_live_rows_on_a_terminal(stage):
    stage.goes_up("gpu-a")
    screen = on_terminal(["up"], NO_COLOR="1")
    assert b"HOST" in screen and b"gpu-a" in screen and b"try it" in screen
    assert b"booting      desired" not in screen


def test_a_dumb_terminal_gets_plain_lines(stage):
    stage.goes_up("gpu-a")
    screen = on_terminal(["up"], TERM="dumb")
    assert b"\x1b" not in screen
    assert b"gpu-a        booting" in screen


def test_a_reader_that_leaves_early_is_no_traceback(serving):
    ran = subprocess.run(
        f"{sys.executable} -m fleetctl events | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(ran.stdout.splitlines()) == 1
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "spared"),
    [(["--help"], HEAVY), (["validate"], ("sqlalchemy", "alembic", "paramiko", "rich"))],
)
def test_quick_commands_do_not_import_what_they_do_not_need(folder, arguments, spared):
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fleetctl", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {row.rpartition("|")[2].strip().partition(".")[0] for row in ran.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & set(spared)
