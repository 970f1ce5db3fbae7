"""Putting a file: whole, or as if nothing had happened; over SSH and on this machine alike."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from fleet_lab.host import Host

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.ssh.connections import Connections
from fleet_controller.hosts.ssh.transport import SshTransport
from fleet_controller.hosts.transport import Transport
from fleet_controller.spec import FleetSpec


def test_bytes_and_files_arrive_with_their_mode(transport: Transport, tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    source = tmp_path / "source"
    source.write_bytes(content)
    heard: list[tuple[int, int]] = []
    for data in (content, source):
        target = tmp_path / "target"
        transport.put(data, str(target), 0o640, lambda sent, size: heard.append((sent, size)))
        assert target.read_bytes() == content
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert heard[-1] == (3_000_001, 3_000_001)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_an_older_file_is_replaced_and_an_empty_one_is_fine(transport: Transport, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    transport.put(b"", str(target), 0o600)
    assert target.read_bytes() == b""


def test_a_folder_that_is_not_there(transport: Transport, tmp_path: Path) -> None:
    with pytest.raises(HostFailure) as caught:
        transport.put(b"x", str(tmp_path / "none" / "target"), 0o600)
    assert str(tmp_path / "none") in caught.value.cause


@pytest.mark.machine
def test_a_full_disk_leaves_the_old_file_and_says_how_much_room_there_is(
    host: Host, fleet_of: Callable[..., FleetSpec]
) -> None:
    (host.home / ".fleetctl").mkdir()
    host.with_full_disk(1_000_000)
    connections = Connections(fleet_of([host.entry()]))
    transport = SshTransport(connections.to_host("h1"), 20)
    target = host.home / ".fleetctl" / "target"
    transport.put(b"old", str(target), 0o600)
    with pytest.raises(HostFailure) as caught:
        transport.put(b"x" * 4_000_000, str(target), 0o600)
    assert caught.value.kind == "disk"
    assert "4.0 MB" in caught.value.cause
    assert "MB free" in caught.value.cause
    assert "install.directory" in caught.value.next_step
    assert target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    host.with_room_again()
    transport.put(b"x" * 4_000_000, str(target), 0o600)
    assert target.stat().st_size == 4_000_000
    connections.close()


def test_a_host_without_sftp_says_what_to_set(host: Host, fleet_of: Callable[..., FleetSpec]) -> None:
    host.noisy_files()
    connections = Connections(fleet_of([host.entry()]))
    with pytest.raises(HostFailure) as caught:
        SshTransport(connections.to_host("h1"), 5).put(b"x", "target", 0o600)
    assert caught.value.kind == "sftp"
    assert "Subsystem sftp" in caught.value.next_step
    connections.close()
