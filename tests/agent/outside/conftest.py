"""Agents with an outside engine, and what is left of one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ENGINE = Path(__file__).with_name("served_engine.py")


@pytest.fixture(scope="session")
def outside_model() -> Callable[..., dict[str, Any]]:
    """Makes the configuration of a model that served_engine.py serves; `flags` are its command line's."""

    def make(name: str = "llm", *flags: str, **command: Any) -> dict[str, Any]:
        own = {key[:-1]: command.pop(key) for key in list(command) if key.endswith("_") and key != "_"}
        argv = [sys.executable, str(ENGINE), "--port", "{port}", *flags]
        manners = {
            "argv": argv,
            "health_interval_s": 0.1,
            "start_timeout_s": 20.0,
            "stop_grace_s": 5.0,
            **command,
        }
        return {"name": name, "path": "/nonexistent", "runtime": "command", "command": manners, **own}

    return make


def processes(text: str) -> set[int]:
    """The living processes with this text in their command line."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "cmdline").read_bytes() and state(int(folder.name)) not in "ZX":
                found.add(int(folder.name))
        except OSError:
            continue
    return found


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def soon(true: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not {what} within {seconds} s"
        time.sleep(0.02)
