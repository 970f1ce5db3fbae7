"""HAProxy's runtime API: one connection, one command at a time. Source: HAProxy management manual, 9.3."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
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
        return (await self._ask(command, 1))[0]

    async def ask_all(self, commands: Sequence[str]) -> list[str]:
        """The answers to several commands, that are carried out one right after the other. Raises ApiError."""
        return await self._ask(";".join(commands), len(commands))

    async def _ask(self, line: str, answers: int) -> list[str]:
        async with self._turn:
            if self.closed or self._writer.is_closing():
                raise ApiError("the connection is closed")
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    self._writer.write(line.encode() + b"\n")
                    # Each command of a line ends in a prompt of its own.
                    return [
                        (await self._reader.readuntil(_PROMPT))[: -len(_PROMPT)].decode("latin-1").strip("\n")
                        for _ in range(answers)
                    ]
            except TimeoutError:
                self.close()
                raise ApiError(
                    f"no answer to {line.split(chr(10))[0]!r:.100} within {TIMEOUT_S:g} s"
                ) from None
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                self.close()
                raise ApiError(str(error) or "the connection ended") from None

    async def do(self, commands: Iterable[str]) -> None:
        """Commands that change something. Raises ApiError where HAProxy objects to one; the others are done."""
        commands = list(commands)
        for start in range(0, len(commands), _AT_ONCE):
            answers = await self.ask_all(commands[start : start + _AT_ONCE])
            lines = [line.strip() for answer in answers for line in answer.splitlines()]
            objections = [line for line in lines if line and not any(fine in line for fine in _FINE)]
            if objections:
                raise ApiError("; ".join(objections))

    async def replace_map(self, file: str, entries: Mapping[str, str]) -> None:
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
