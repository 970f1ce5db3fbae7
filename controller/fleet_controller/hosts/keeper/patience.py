"""A long command whose progress is told, and that ends when nobody listens any more."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from fleet_controller.hosts.keeper.files import no_room
from fleet_controller.hosts.keeper.speech import Trouble, say

INDEX = (
    "Check that the host reaches the package index (install.pip_args can name another), and the requirements"
)


def patient(argv: list[str], what: str, step: str = INDEX) -> None:
    """Run a long command and report on it; when nobody listens any more (the SSH connection broke), end it."""
    say("progress", what)
    last: list[str] = []
    work = subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert work.stdout is not None
    os.set_blocking(work.stdout.fileno(), False)
    rest = b""
    spoken = time.monotonic()
    try:
        while True:
            try:
                data = work.stdout.read()
            except OSError:
                data = None
            if data == b"" or (data is None and work.poll() is not None):
                break
            if data is None:
                time.sleep(0.1)
            else:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    text = line.decode("utf-8", "replace").strip()
                    last = ([*last, text])[-20:]
                    if text.startswith(("Collecting ", "Downloading ", "Installing ", "Building ")):
                        spoken = time.monotonic()
                        say("progress", text[:200])
            if time.monotonic() - spoken > 5:
                spoken = time.monotonic()
                say("progress", what)
        work.wait()
    except BaseException:
        os.killpg(work.pid, signal.SIGKILL)
        work.wait()
        raise
    if work.returncode:
        text = " / ".join([*last[-6:], rest.decode("utf-8", "replace")])
        if "No space left" in text or "Disk quota" in text:
            raise no_room(argv[0], text[-400:])
        raise Trouble(
            "environment",
            f"{what} failed: {text[-800:]}",
            step,
        )
