"""What a log has that was not read yet, through its rotation: `log` is moved to `log.1` and begun anew.

A cursor says up to where it was read: which file (device, inode and a checksum of its first bytes, for a new file may
get an old one's inode) and how many bytes of it. Lines are handed out whole; the last one, while it has no end yet, is
left for later.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import BinaryIO

# The most of one answer, in bytes of the log; escaped as JSON they may become six times as many.
MOST = 128 * 1024
MOST_AT_FIRST = 1024 * 1024
# A line that is longer is handed out in pieces.
LONGEST_LINE = 64 * 1024
# So many first bytes of a file tell it from another.
HEAD = 256


class File:
    """One of the two files, held open: what happens to its name meanwhile does not matter."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        info = os.fstat(file.fileno())
        self.identity = [info.st_dev, info.st_ino]
        self.size = info.st_size

    def cursor(self, position: int) -> str:
        length = min(HEAD, position)
        return json.dumps({"file": self.identity, "at": position, "head": [length, self.head(length)]})

    def head(self, length: int) -> str:
        return hashlib.sha256(os.pread(self._file.fileno(), length, 0)).hexdigest()[:16]

    def read(self, position: int, most: int) -> bytes:
        return os.pread(self._file.fileno(), max(0, min(most, self.size - position)), position)

    def close(self) -> None:
        self._file.close()


class Growth:
    """The log at `path`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def end(self, lines: int) -> tuple[list[str], str]:
        """The last lines, of at most MOST_AT_FIRST bytes, and the cursor behind them; "" where there is no log yet."""
        opened = self._open()
        if not opened:
            return [], ""
        *before, last = opened
        data = last.read(max(0, last.size - MOST_AT_FIRST), MOST_AT_FIRST)
        whole = data.rfind(b"\n") + 1
        cursor = last.cursor(last.size - len(data) + whole)
        told = split(data[:whole])
        if before and len(told) < lines and last.size <= MOST_AT_FIRST:
            older = before[0].read(max(0, before[0].size - MOST_AT_FIRST), MOST_AT_FIRST)
            told = split(older) + told
        for one in opened:
            one.close()
        return told[-lines:] if lines else [], cursor

    def after(self, cursor: str) -> tuple[list[str], str, bool]:
        """Whole lines behind the cursor, the cursor behind those, and whether some before them are lost."""
        opened = self._open()
        if not opened:
            return [], cursor, False
        place, position, lost = where(opened, cursor)
        if position >= opened[place].size and place + 1 < len(opened):
            place, position = place + 1, 0
        one = opened[place]
        data = one.read(position, MOST)
        whole = data.rfind(b"\n") + 1
        finished = place + 1 < len(opened) and position + len(data) == one.size
        if finished or (not whole and len(data) > LONGEST_LINE):
            whole = len(data)  # nobody ends its last line any more
        told, behind = split(data[:whole]), one.cursor(position + whole)
        for one in opened:
            one.close()
        return told, behind, lost

    def _open(self) -> list[File]:
        """What there is, the older first. The newer one is opened first: a rotation between hides nothing."""
        opened: list[File] = []
        for path in (self._path, self._path + ".1"):
            try:
                one = File(open(path, "rb"))  # noqa: SIM115
            except OSError:
                continue
            if opened and opened[0].identity == one.identity:
                one.close()
            else:
                opened.insert(0, one)
        return opened


def where(opened: list[File], cursor: str) -> tuple[int, int, bool]:
    """In which of the files, and at which byte, the cursor stands; and whether what was there is lost."""
    if not cursor:
        return 0, 0, False
    asked = json.loads(cursor)
    length, head = asked["head"]
    for place, one in enumerate(opened):
        if one.identity == asked["file"]:
            if one.size >= asked["at"] and one.head(length) == head:
                return place, asked["at"], False
            return place, 0, True  # somebody emptied it, or the name of the inode passed to another
    return 0, 0, True


def split(data: bytes) -> list[str]:
    lines = data.split(b"\n")
    if not lines[-1]:
        del lines[-1]
    return [line.decode("utf-8", "replace") for line in lines]
