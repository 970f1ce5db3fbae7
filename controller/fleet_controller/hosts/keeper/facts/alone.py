"""Facts gathered each alone: a process of its own and a time limit of its own, so that one that hangs delays no other.

A thread would not do: a program or a file system that hangs in the kernel can't be interrupted, and would keep the
keeper from ending. A process can be left behind: it holds none of our pipes, and is killed.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import time
from collections.abc import Callable
from typing import Any

from fleet_controller.hosts.keeper.speech import Trouble

# What one fact may say; more is cut off and the fact is unknown.
LIMIT = 256 * 1024


def gather(wanted: dict[str, tuple[Callable[[], object], float]]) -> dict[str, Any]:
    """Each fact as {"value": ...}, or {"trouble": why it is not known}; none takes longer than its seconds."""
    found: dict[str, Any] = {}
    started = time.monotonic()
    heard: dict[str, bytearray] = {}
    until: dict[str, float] = {}
    child: dict[str, int] = {}
    with selectors.DefaultSelector() as selector:
        for name, (ask, seconds) in wanted.items():
            try:
                pid, handle = begin(ask)
            except OSError as error:
                found[name] = {"trouble": f"could not be looked at: {error.strerror}"}
                continue
            child[name], heard[name], until[name] = pid, bytearray(), started + seconds
            selector.register(handle, selectors.EVENT_READ, name)
        while selector.get_map():
            now = time.monotonic()
            for key in list(selector.get_map().values()):
                if now >= until[key.data] or len(heard[key.data]) > LIMIT:
                    much = len(heard[key.data]) > LIMIT
                    why = "said too much" if much else f"no answer within {wanted[key.data][1]:g} s"
                    found[key.data] = {"trouble": why}
                    give_up(child[key.data])
                    selector.unregister(key.fd)
                    os.close(key.fd)
            waiting = [until[key.data] for key in selector.get_map().values()]
            if not waiting:
                break
            for key, _ in selector.select(max(0.0, min(waiting) - now)):
                data = os.read(key.fd, 65536)
                heard[key.data] += data
                if not data:
                    found[key.data] = understood(heard[key.data])
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    give_up(child[key.data])
    return found


def begin(ask: Callable[[], object]) -> tuple[int, int]:
    """A child that asks: (pid, where its answer can be read)."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    # From here on the child: it never returns, and holds nothing that the caller waits for.
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        answer = json.dumps(asked(ask)).encode()
        while answer:
            answer = answer[os.write(writer, answer) :]
    finally:
        os._exit(0)


def asked(ask: Callable[[], object]) -> dict[str, Any]:
    try:
        return {"value": ask()}
    except Trouble as trouble:
        return {"trouble": trouble.cause}
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return {"trouble": f"{error.strerror or error}{where}"}
    except Exception as error:  # the boundary of one fact: what it trips over is its own, the others are told
        return {"trouble": f"{type(error).__name__}: {error}"}


def understood(said: bytearray) -> dict[str, Any]:
    try:
        value = json.loads(said.decode())
    except ValueError:
        return {"trouble": "it was ended while it was looked at"}
    return value if isinstance(value, dict) else {"trouble": "was not understood"}


def give_up(pid: int) -> None:
    """End the child and all that it started. Not waited for: what hangs in the kernel goes when it can."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
