"""Errand: run an operator's command; its output is ours as it comes, and it ends when nobody listens any more."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from fleet_controller.hosts.keeper.elevation import elevation_of
from fleet_controller.hosts.keeper.listening import Listener
from fleet_controller.hosts.keeper.speech import say

GRACE_S = 2.0
PAUSE_S = 0.05


def errand(args: dict[str, Any]) -> dict[str, Any]:
    """The command's exit status, negative for a signal as subprocess has it, 126 and 127 as a shell has them.

    `argv` reaches it as it is. `stdin` is base64. None for `status`: it was ended after `limit_s`.
    """
    argv = [word.encode("utf-8", "surrogateescape") for word in args["argv"]]
    data = base64.b64decode(args["stdin"])
    root = elevation_of(args) if args["sudo"] else None
    if root is not None:
        before, password = root.dressed([])
        argv = [word.encode() for word in before] + argv
        # sudo reads its line a byte at a time, so what follows is the command's own.
        data = password + data
    # What a login printed before us is not the command's.
    say("begins", None)
    sys.stderr.write("\n{} begins null\n".format(args["nonce"]))
    sys.stderr.flush()
    try:
        child = subprocess.Popen(
            argv, stdin=subprocess.PIPE if data else subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        name = args["argv"][0]
        found = not isinstance(error, FileNotFoundError)
        sys.stderr.write(f"{name}: {error.strerror if found else 'command not found'}\n")
        return {"status": 126 if found else 127, "timed_out": False}
    if child.stdin is not None:
        threading.Thread(target=feed, args=(child.stdin, data), daemon=True).start()

    def end() -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(child.pid, number)
            except ProcessLookupError:
                return
            except PermissionError:
                # sudo's own process is root's.
                if root is not None:
                    root.run(["kill", f"-{int(number)}", "--", f"-{child.pid}"], 10.0)
            with suppress(subprocess.TimeoutExpired):
                child.wait(GRACE_S)
                if number == signal.SIGTERM:
                    continue  # what it started may go on

    listener = Listener()
    until = time.monotonic() + args["limit_s"]
    pause = 0.001
    while child.poll() is None:
        if listener.gone_within(pause):
            end()
            os._exit(1)
        if time.monotonic() >= until:
            end()
            return {"status": None, "timed_out": True}
        pause = min(PAUSE_S, pause * 1.5)
    return {"status": child.returncode, "timed_out": False}


def feed(pipe: Any, data: bytes) -> None:
    with suppress(OSError):
        pipe.write(data)
    with suppress(OSError):
        pipe.close()
