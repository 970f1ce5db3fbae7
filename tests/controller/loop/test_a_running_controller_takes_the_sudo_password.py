"""The daemon, not a stand-in: it takes the password while it runs, shows it nowhere, and forgets it when it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet_controller.handover import NAME, HandoverError, hand_over

CANARY = "canary-7f3a-sudo"


def test_it_takes_it_and_shows_it_nowhere(fleet: Callable[..., Any]) -> None:
    one = fleet(hosts=1)
    ready = one.folder / "ready"
    daemon = one.daemon("--ready-file", str(ready))
    one.until(ready.exists, "the controller to run")
    hand_over(one.state.path, CANARY)
    for name in ("cmdline", "environ"):
        assert CANARY.encode() not in Path(f"/proc/{daemon.pid}/{name}").read_bytes()
    daemon.terminate()
    assert CANARY.encode() not in b"".join(daemon.communicate(timeout=60))
    assert not (one.state.path / NAME).exists()
    for path in one.folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert CANARY.encode() not in path.read_bytes(), path
    with pytest.raises(HandoverError):
        hand_over(one.state.path, CANARY)
