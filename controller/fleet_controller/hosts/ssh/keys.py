"""Host keys of new machines: looked at, and noted down only when the operator asked for that in so many words.

This is "trust on first use": the key that a machine shows the first time is taken for its own. A key that
differs from the known one, or is revoked, is never touched here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.ssh.connection import SshConnection
from fleet_controller.hosts.ssh.connections import Connections
from fleet_controller.hosts.ssh.known_hosts import Verdict, fingerprint, known_line
from fleet_controller.spec import FleetSpec


@dataclass(frozen=True)
class NewKey:
    """The key of a machine that known_hosts does not name. `line` is what belongs there."""

    host: str
    known_name: str
    key_type: str
    fingerprint: str
    line: str
    known_hosts: Path


def unknown(spec: FleetSpec, names: Iterable[str]) -> list[NewKey]:
    """The keys of those hosts (and of the jump hosts before them) that nobody trusts yet; local hosts have none.

    A host that cannot be reached, or only behind a jump host that is itself unknown, is not in the list.
    """
    connections = Connections(spec)
    try:
        found: dict[tuple[Path, str], NewKey] = {}
        for name in names:
            if spec.host(name).is_local:
                continue
            for connection in _way(connections.to_host(name)):
                at = (connection.server.known_hosts[0], connection.server.known_name)
                if at not in found:
                    key = _new_key(connection)
                    if key is not None:
                        found[at] = key
        return list(found.values())
    finally:
        connections.close()


def trust(spec: FleetSpec, names: Iterable[str]) -> list[NewKey]:
    """Note down every key that `unknown` finds, jump hosts first, until there is none left; returns them.

    Raises HostFailure when a known_hosts file cannot be written.
    """
    names = list(names)
    trusted: list[NewKey] = []
    while keys := [key for key in unknown(spec, names) if key not in trusted]:
        for key in keys:
            add(key)
        trusted += keys
    return trusted


def add(key: NewKey) -> None:
    """Append one line to known_hosts; a new file is 0600, a new folder 0700."""
    path = key.known_hosts
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            unended = False
            if end:
                file.seek(end - 1)
                unended = file.read(1) != b"\n"
            file.write(b"\n" * unended + key.line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise HostFailure(
            key.host,
            "identity",
            f"its key cannot be noted down in {path}: {error.strerror}",
            "Correct ssh.known_hosts or the file's permissions",
        ) from error


def _way(connection: SshConnection) -> Iterator[SshConnection]:
    if connection.jump is not None:
        yield from _way(connection.jump)
    yield connection


def _new_key(connection: SshConnection) -> NewKey | None:
    server = connection.server
    try:
        shown, verdict = connection.shown_key()
    except HostFailure:
        return None  # said when the host is used
    if verdict is not Verdict.UNKNOWN:
        return None
    line = known_line(server.known_name, shown.key_type, shown.blob)
    return NewKey(
        server.label, server.known_name, shown.key_type, fingerprint(shown.blob), line, server.known_hosts[0]
    )
