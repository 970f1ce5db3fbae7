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

from fleet_controller.hosts.keeper.elevation import Elevation, elevation_of
from fleet_controller.hosts.keeper.listening import Listener

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
    for stream in (sys.stdout, sys.stderr):
        stream.write("\n{} begins\n".format(args["nonce"]))
        stream.flush()
    status = run(argv, data, args["limit_s"], root)
    sys.stdout.write("{} ends".format(args["nonce"]))
    return {"status": status}


def run(argv: list[bytes], data: bytes, limit_s: float, root: Elevation | None) -> int | None:
    try:
        child = subprocess.Popen(
            argv, stdin=subprocess.PIPE if data else subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        why = "command not found" if missing else str(error.strerror)
        os.write(2, argv[0] + b": " + why.encode() + b"\n")
        return 127 if missing else 126
    if child.stdin is not None:
        threading.Thread(target=feed, args=(child.stdin, data), daemon=True).start()
    listener = Listener()
    until = time.monotonic() + limit_s
    pause = 0.001
    while child.poll() is None:
        if listener.gone_within(pause):
            end(child, root)
            os._exit(1)
        if time.monotonic() >= until:
            end(child, root)
            return None
        pause = min(PAUSE_S, pause * 1.5)
    return child.returncode


def end(child: subprocess.Popen[bytes], root: Elevation | None) -> None:
    """SIGTERM to it and what it started, then SIGKILL to what is left of that."""
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


def feed(pipe: Any, data: bytes) -> None:
    with suppress(OSError):
        pipe.write(data)
    with suppress(OSError):
        pipe.close()
