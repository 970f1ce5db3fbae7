"""How the command line hands the sudo password to the running controller: over a socket in the state folder.

Memory to memory: it is in no file, argument, environment, journal or log. The folder is 0700, and the kernel says who
is at the other end of the socket: this user or root, or nothing is taken. A controller that is started anew has
forgotten it, which is what its hosts then say ("sudo asks for a password").
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet_controller.hosts.sudo import SudoPassword

NAME = "handover.sock"
LIMIT_BYTES = 4096
TIMEOUT_S = 5.0
# sun_path of unix(7), with its end.
_LONGEST = 107


class HandoverError(Exception):
    """The controller did not take it; the message says why."""


@contextmanager
def taking(folder: Path, password: SudoPassword) -> Iterator[None]:
    """Take what is handed over meanwhile. Raises OSError where the socket can't be made."""
    with socket.socket(socket.AF_UNIX) as server:
        with _reachable(folder) as path:
            Path(path).unlink(missing_ok=True)  # of one that was killed
            before = os.umask(0o177)
            try:
                server.bind(path)
            finally:
                os.umask(before)
        server.listen(8)
        threading.Thread(target=_serve, args=(server, password), name="handover", daemon=True).start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            (folder / NAME).unlink(missing_ok=True)


def _serve(server: socket.socket, password: SudoPassword) -> None:
    while True:
        try:
            line, _ = server.accept()
        except OSError:
            return  # closed: the controller ends
        with line, contextlib.suppress(OSError, ValueError, RecursionError):
            line.settimeout(TIMEOUT_S)
            line.sendall(_take(line, password).encode())


def _take(line: socket.socket, password: SudoPassword) -> str:
    _, uid, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid not in (0, os.getuid()):
        return "it takes it from its own user alone"
    said = b""
    while piece := line.recv(LIMIT_BYTES):
        said += piece
        if len(said) > LIMIT_BYTES:
            return "that is too long for a password"
    message = json.loads(said)
    value = message.get("sudo_password") if isinstance(message, dict) else None
    if not isinstance(value, str):
        return "that is no password"
    password.give(value)
    return "taken"


def hand_over(folder: Path, password: str) -> None:
    """Give it to the controller that runs by `folder`. Raises HandoverError."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(TIMEOUT_S)
            with _reachable(folder) as path:
                line.connect(path)
            line.sendall(json.dumps({"sudo_password": password}).encode())
            line.shutdown(socket.SHUT_WR)
            said = line.recv(200).decode("utf-8", "replace")
    except OSError as error:
        raise HandoverError(
            f"the sudo password was not handed to the controller: {error.strerror or error};"
            " see `fleetctl logs controller`, then run the same again"
        ) from error
    if said != "taken":
        raise HandoverError(f"the controller did not take the sudo password: {said or 'it hung up'}")


@contextmanager
def _reachable(folder: Path) -> Iterator[str]:
    """The socket's path, by way of the open folder where it is too long for a socket's address."""
    path = str(folder / NAME)
    if len(os.fsencode(path)) <= _LONGEST:
        yield path
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{opened}/{NAME}"
    finally:
        os.close(opened)
