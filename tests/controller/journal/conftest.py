"""A journal on disk, and programs that use the same one from other processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet_controller.journal import Journal


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'state' / 'state.db'}"


@pytest.fixture
def journal(url: str) -> Iterator[Journal]:
    """A fresh journal that knows the hosts a, b and c, all off."""
    opened = Journal.open(url)
    opened.enlist(["a", "b", "c"], 1.0)
    yield opened
    opened.close()


@pytest.fixture
def program(url: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """program(code): a Python process running `code`, in which `url` and `Journal` are known."""
    running: list[subprocess.Popen[str]] = []

    def run(code: str) -> subprocess.Popen[str]:
        text = f"import sys, time\nfrom fleet_controller.journal import *\nurl = {url!r}\n{code}"
        process = subprocess.Popen(
            [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()
