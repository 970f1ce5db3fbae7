"""A file on its way to a host by SFTP: whole or not there, and going on where an earlier try was cut off."""

from __future__ import annotations

import hashlib
import io
import posixpath
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import paramiko

from fleet_controller.hosts.command import Command
from fleet_controller.hosts.failure import HostFailure, brief
from fleet_controller.hosts.local import disk_failure
from fleet_controller.hosts.ssh.connection import SshConnection
from fleet_controller.hosts.transport import Pace, Progress, Result, part_name

_CHUNK = 32 * 1024
_TROUBLE = (OSError, EOFError, paramiko.SSHException, paramiko.SFTPError)


class Upload:
    """One file for one host. `execute` runs a command there on the same connection."""

    def __init__(
        self, connection: SshConnection, execute: Callable[[Command], Result], timeout_s: float
    ) -> None:
        self._connection = connection
        self._execute = execute
        self._timeout_s = timeout_s
        self._host = connection.server.label

    def put(
        self,
        data: bytes | Path,
        path: str,
        mode: int,
        progress: Progress | None,
        sha256: str | None,
        pace: Pace | None,
    ) -> int:
        """The bytes that were sent. With `sha256` a part is left where the way broke, and used by the next try."""
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        folder = posixpath.dirname(path) or "."
        # Hosts with a home in common may be sent the same file at the same time: each has a part of its own.
        mark = f"{sha256[:20]}-{self._host[:40]}" if sha256 else secrets.token_hex(4)
        name = part_name(posixpath.basename(path), mark)
        part = posixpath.join(folder, name)
        source: BinaryIO = io.BytesIO(data) if isinstance(data, bytes) else data.open("rb")
        keep = False
        with self._connection.slot(), source:
            sftp = self._sftp()
            try:
                begin = self._begin(sftp, part, size) if sha256 else 0
                digest = self._upload(sftp, source, part, begin, size, mode, progress, pace)
                if sha256 is not None and digest != sha256:
                    raise self._damaged_here(data, path)
                if begin and not self._arrived(sftp, part, size, digest):
                    # what an earlier try left was not what it should have been (a host that lost power, say)
                    digest = self._upload(sftp, source, part, 0, size, mode, progress, pace)
                    begin -= size
                self._check(sftp, part, size, digest)
                sftp.posix_rename(part, path)
            except _TROUBLE as error:
                failure = self._unwritten(folder, path, size, error)
                keep = sha256 is not None and failure.unreachable
                raise failure from error
            finally:
                if not keep:
                    with suppress(*_TROUBLE):
                        sftp.remove(part)  # gone already when all went well
                sftp.close()
        return size - begin

    def _begin(self, sftp: paramiko.SFTPClient, part: str, size: int) -> int:
        """How much of it is there; a larger one is another's and begins anew."""
        try:
            there = sftp.stat(part).st_size or 0
        except FileNotFoundError:
            return 0
        return there if there <= size else 0

    def _sftp(self) -> paramiko.SFTPClient:
        channel = self._connection.session()
        channel.settimeout(self._timeout_s)
        try:
            channel.invoke_subsystem("sftp")
            return paramiko.SFTPClient(channel)
        except _TROUBLE as error:
            channel.close()
            raise HostFailure(
                self._host,
                "sftp",
                f"it takes no files by SFTP ({brief(str(error)) or 'the channel was closed'})",
                "Set `Subsystem sftp internal-sftp` in the host's sshd_config; a login script that prints something"
                " (.bashrc) breaks it too",
            ) from error

    def _upload(
        self,
        sftp: paramiko.SFTPClient,
        source: BinaryIO,
        part: str,
        begin: int,
        size: int,
        mode: int,
        progress: Progress | None,
        pace: Pace | None,
    ) -> str:
        """Send what is behind `begin`; the sha256 of all of it, as it is here."""
        digest = hashlib.sha256()
        source.seek(0)
        sent = 0
        with sftp.open(part, "r+" if begin else "w") as out:
            out.chmod(mode)
            out.set_pipelined(True)
            out.seek(begin)
            while chunk := source.read(min(_CHUNK, begin - sent) if sent < begin else _CHUNK):
                digest.update(chunk)
                sent += len(chunk)
                if sent <= begin:
                    continue
                if pace is not None:
                    pace(len(chunk))
                out.write(chunk)
                if progress is not None:
                    progress(sent, size)
        return digest.hexdigest()

    def _arrived(self, sftp: paramiko.SFTPClient, part: str, size: int, digest: str) -> bool:
        """Whether what arrived is what was sent. Raises OSError when it is not as long."""
        arrived = sftp.stat(part).st_size
        if arrived != size:
            raise OSError(f"{arrived} of {size} bytes arrived")
        found = self._execute(Command(("sha256sum", "--", part), timeout_s=60 + size / 20e6))
        # "HASH  PATH", perhaps within what a login says besides. The path may have the hash in it: that has no blanks
        # behind it.
        if f"{digest}  ".encode() in found.stdout:
            return True
        if found.status != 127:
            return False
        reading = hashlib.sha256()  # no such program there: read the file back
        with sftp.open(part, "rb") as back:
            back.prefetch(size)
            while chunk := back.read(_CHUNK):
                reading.update(chunk)
        return reading.hexdigest() == digest

    def _check(self, sftp: paramiko.SFTPClient, part: str, size: int, digest: str) -> None:
        if not self._arrived(sftp, part, size, digest):
            raise HostFailure(
                self._host, "sftp", f"{part} arrived damaged (its sha256 differs)", "Run the same again"
            )

    def _damaged_here(self, data: bytes | Path, path: str) -> HostFailure:
        what = path if isinstance(data, bytes) else data
        return HostFailure(
            "this machine",
            "release",
            f"{what} is not what it should be (its sha256 differs)",
            "Run the same again",
        )

    def _unwritten(self, folder: str, path: str, size: int, error: BaseException) -> HostFailure:
        if isinstance(error, PermissionError):
            return HostFailure(
                self._host,
                "permission",
                f"{path} may not be written by this user",
                "Set install.directory to its own",
            )
        if isinstance(error, FileNotFoundError):
            return HostFailure(self._host, "sftp", f"there is no folder {folder}", "Run the same again")
        if (
            not isinstance(error, OSError)
            or isinstance(error, TimeoutError | ConnectionError)
            or "closed" in str(error)
        ):
            return self._connection.server.lost(f"{path} was sent", error)
        # SFTP has one word for all trouble ("Failure"): ask how full the disk is.
        return disk_failure(self._host, folder, size, self._free(folder), brief(str(error)))

    def _free(self, folder: str) -> int | None:
        with suppress(HostFailure, ValueError, IndexError):
            said = self._execute(Command(("df", "-Pk", "--", folder), timeout_s=10)).stdout.decode(
                "utf-8", "replace"
            )
            return int(said.splitlines()[-1].split()[3]) * 1024
        return None
