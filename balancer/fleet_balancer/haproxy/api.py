"""HAProxy's runtime API: one connection, one command at a time. Source: HAProxy management manual, 9.3."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

_PROMPT = b"\n> "
_MOST = 1 << 26
TIMEOUT_S = 10.0
# Commands in one write: HAProxy reads a line into one buffer.
_AT_ONCE = 20
# What it answers where it did as told, besides nothing; anything else is an objection.
_FINE = ("no need to change", "changed from", "IP changed", "port changed", "New version created")


class ApiError(Exception):
    """HAProxy is not there, or objects; str() says what."""


class Api:
    """Made by connect(). The connection stays while HAProxy finishes its last requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()
        self.closed = False

    @classmethod
    async def connect(cls, path: Path) -> Api:
        """Raises OSError."""
        api = cls(*await asyncio.open_unix_connection(str(path), limit=_MOST))
        await api.ask("prompt")
        await api.ask("set timeout cli 1000000")
        return api

    async def ask(self, command: str) -> str:
        """What HAProxy answers to `command`, which may end in "<<" and a payload. Raises ApiError."""
        async with self._turn:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    self._writer.write(command.encode() + b"\n")
                    return (
                        (await self._reader.readuntil(_PROMPT))[: -len(_PROMPT)].decode("latin-1").strip("\n")
                    )
            except TimeoutError:
                self.close()
                raise ApiError(
                    f"no answer to {command.split(chr(10))[0]!r:.100} within {TIMEOUT_S:g} s"
                ) from None
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                raise ApiError(str(error) or "the connection ended") from None

    async def do(self, commands: Iterable[str]) -> None:
        """Commands that change something. Raises ApiError where HAProxy objects to one; the others are done."""
        commands = list(commands)
        for start in range(0, len(commands), _AT_ONCE):
            said = await self.ask(";".join(commands[start : start + _AT_ONCE]))
            objections = [
                s for line in said.splitlines() if (s := line.strip()) and not any(f in s for f in _FINE)
            ]
            if objections:
                raise ApiError("; ".join(objections))

    async def replace_map(self, file: str, entries: dict[str, str]) -> None:
        """Put other entries in the place of a map's, all at once. Raises ApiError."""
        said = await self.ask(f"prepare map {file}")
        version = said.rpartition(" ")[2].strip()
        if not version.isdigit():
            raise ApiError(f"prepare map {file}: {said}")
        lines = [f"{key} {value}" for key, value in entries.items()]
        for start in range(0, len(lines), _AT_ONCE):
            block = "\n".join(lines[start : start + _AT_ONCE])
            if said := (await self.ask(f"add map @{version} {file} <<\n{block}\n")).replace("+", "").strip():
                raise ApiError(f"add map {file}: {said}")
        if said := await self.ask(f"commit map @{version} {file}"):
            raise ApiError(f"commit map {file}: {said}")

    def close(self) -> None:
        self.closed = True
        self._writer.close()
