"""Agents with an outside engine, and what is left of one."""

from __future__ import annotations

import sys
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
