"""A real ssh-agent."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet_lab.host import program
from fleet_lab.lab import Lab


@pytest.fixture
def agent(ssh_hosts: Lab) -> Iterator[Callable[..., Path]]:
    """`agent(key, ...)`: the socket of a real ssh-agent that holds these keys (and the certificates beside them)."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*keys: Path) -> Path:
        path = ssh_hosts.folder / f"agent{len(started)}"
        started.append(
            subprocess.Popen([program("ssh-agent"), "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
        )
        while not path.exists():
            assert started[-1].poll() is None
        env = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        for key in keys:
            subprocess.run([program("ssh-add"), "-q", str(key)], env=env, check=True, capture_output=True)
        return path

    yield start
    for process in started:
        process.terminate()
        process.wait()
