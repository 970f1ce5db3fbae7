"""Programs that stand for what is beside a machine: hypervisors, BMCs. Each test starts its own."""

from __future__ import annotations

import shutil
import socket

import pytest


def needs(program: str, package: str) -> str:
    """Where a program is; the test is skipped with the reason where it is not installed."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed: apt-get install {package}")
    return found


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
