"""`--ask-sudo-password`: without a terminal the first line of what is piped in; it is in no file afterwards."""

from __future__ import annotations

import hashlib
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from fleetctl import sudo
from fleetctl.failure import Failed


def piped(text: str, monkeypatch: pytest.MonkeyPatch) -> str | None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return sudo.ask(True)


def test_nobody_is_asked_without_the_option() -> None:
    assert sudo.ask(False) is None


def test_the_first_line_that_is_piped_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert piped("a b'$(c)\r\nmore\n", monkeypatch) == "a b'$(c)"


@pytest.mark.parametrize("text", ["", "\n", "x" * 2000, "a\0b\n"])
def test_what_is_no_password_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failed, match="no password"):
        piped(text, monkeypatch)


def test_a_terminal_is_asked_once_and_shows_nothing(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    program = "from fleetctl import sudo; import hashlib; print(hashlib.sha256(sudo.ask(True).encode()).hexdigest())"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        seen = b""
        while b"sudo password for the hosts: " not in seen:
            seen += os.read(ours, 1000)
        os.write(ours, b"canary\n")
        assert process.stdout is not None
        assert process.stdout.read().decode().strip() == hashlib.sha256(b"canary").hexdigest()
        try:
            while piece := os.read(ours, 1000):
                seen += piece
        except OSError:
            pass  # the terminal ends with the program
    os.close(ours)
    assert b"canary" not in seen
