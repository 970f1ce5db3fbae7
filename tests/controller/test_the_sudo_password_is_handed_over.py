"""From the command line to the running controller: memory to memory, and to nobody else."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from fleet_controller.handover import LIMIT_BYTES, NAME, HandoverError, hand_over, taking
from fleet_controller.hosts.sudo import SudoPassword


@pytest.mark.parametrize("depth", [0, 120])
def test_it_arrives_and_lies_in_no_file(depth: int, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * depth)  # the path of a socket may not be longer than 107 bytes
    folder.mkdir(exist_ok=True)
    password = SudoPassword()
    with taking(folder, password):
        assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o600
        hand_over(folder, 'canary ä " \\')
        assert password.value == 'canary ä " \\'
        assert "canary" not in repr(password)
        hand_over(folder, "another")
        assert password.value == "another"
    assert list(folder.iterdir()) == []


def test_nobody_is_there_to_take_it(tmp_path: Path) -> None:
    with pytest.raises(HandoverError, match="fleetctl logs controller"):
        hand_over(tmp_path, "canary")


def test_a_socket_that_a_killed_controller_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / NAME))
    password = SudoPassword()
    with taking(tmp_path, password):
        hand_over(tmp_path, "x")
    assert password.value == "x"


@pytest.mark.parametrize(
    "junk", [b"", b"{}", b"[", b"[]", b'{"sudo_password": 1}', b"[" * 4000, b"\xff", b"x" * 2 * LIMIT_BYTES]
)
def test_junk_is_not_taken_and_hurts_nobody(junk: bytes, tmp_path: Path) -> None:
    password = SudoPassword()
    with taking(tmp_path, password):
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            line.connect(str(tmp_path / NAME))
            try:
                line.sendall(junk)
                line.shutdown(socket.SHUT_WR)
                assert line.recv(100) != b"taken"
            except ConnectionError:
                pass
        hand_over(tmp_path, "x")
    assert password.value == "x"
