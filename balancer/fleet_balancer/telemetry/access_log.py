"""The access log: one JSON line for a request, and who writes it without ever keeping traffic waiting.

A line is made where the request ends and put on a list; four times a second the list goes to a thread of its own, which
alone touches the file. A disk that is full or hangs costs lines, never requests: they are counted in `dropped`.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
import zlib
from pathlib import Path

from fleet_wire.balancer import AccessLog

log = logging.getLogger(__name__)

# What may wait for a slow disk, in bytes, before lines are dropped.
MOST_WAITING = 16 * 1024 * 1024
# The path's bytes that a line holds; a longer one is cut.
_TARGET_KEPT = 1024
_QUOTED_KEPT = 10_000
_LOOK_S = 1.0
_LINE = (
    b'{"at":%.3f,"request_id":"%b","client":"%b","method":"%b","target":"%b","status":%d,"bytes":%d,'
    b'"duration_ms":%.2f,"host":%b,"pool":%b,"model":%b,"key":%b,"retries":%d,"refused":%b}\n'
)


class AccessLogError(Exception):
    """The log can't be opened; str() is one line for the operator."""


class AccessLogWriter:
    """Lines for one file. start() opens it and begins to write, stop() writes what is left."""

    def __init__(self, config: AccessLog) -> None:
        self._path = None if config.path == "-" else Path(config.path)
        # Requests whose id's checksum is below this are written: each worker and each log agree on which.
        self._below = round(config.sample * 2**32)
        self._lines: list[bytes] = []
        self._quoted: dict[str | None, bytes] = {None: b"null"}
        self._handed = 0
        self._refused = 0
        self._wall = time.time() - time.monotonic()
        self._blocks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._descriptor = -1
        self._next_look = 0.0
        self._reopen = False
        # Counted by the thread alone, as the fields above are by the loop alone.
        self._done = 0
        self._lost = 0
        self._torn = False
        self._failed = False

    @property
    def dropped(self) -> int:
        """Lines that were not written because the disk was full or too slow."""
        return self._refused + self._lost

    def start(self) -> None:
        """Raises AccessLogError."""
        try:
            self._open()
        except OSError as error:
            raise AccessLogError(f"the access log {self._path} can't be written: {error.strerror}") from None
        self._thread = threading.Thread(target=self._write_all, name="access-log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, within a second."""
        self.flush(time.monotonic())
        if self._thread is not None:
            self._blocks.put(None)
            self._thread.join(1.0)
            self._thread = None

    def record(
        self,
        request_id: bytes,
        status: int,
        arrived: float,
        now: float,
        client: bytes,
        method: bytes,
        target: bytes,
        sent: int,
        host: str | None,
        pool: str | None,
        model: str | None,
        key: str | None,
        retries: int,
        refused: str | None = None,
    ) -> None:
        """A request ended. `arrived` and `now`: monotonic seconds. `sent`: bytes of the reply's body, framing included.

        Status 499: the client left before its reply was complete. Below 400 and not refused: sampled by the id.
        The target's query is left out: it is where secrets stand.
        """
        if status < 400 and refused is None and zlib.crc32(request_id) >= self._below:
            return
        target = target.partition(b"?")[0][:_TARGET_KEPT]
        if b'"' in target or b"\\" in target:
            target = target.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        if b'"' in request_id or b"\\" in request_id:
            request_id = request_id.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        quoted = self._quoted
        self._lines.append(
            _LINE
            % (
                arrived + self._wall,
                request_id,
                client,
                method,
                target,
                status,
                sent,
                (now - arrived) * 1000.0,
                quoted[host] if host in quoted else self._quote(host),
                quoted[pool] if pool in quoted else self._quote(pool),
                quoted[model] if model in quoted else self._quote(model),
                quoted[key] if key in quoted else self._quote(key),
                retries,
                quoted[refused] if refused in quoted else self._quote(refused),
            )
        )

    def flush(self, now: float) -> None:
        """Hand over what has come together. Called a few times a second; `now` is monotonic seconds."""
        self._wall = time.time() - now
        lines = self._lines
        if not lines:
            return
        self._lines = []
        block = b"".join(lines)
        if self._handed - self._done + len(block) > MOST_WAITING:
            self._refused += len(lines)
            return
        self._handed += len(block)
        self._blocks.put(block)

    def reopen(self) -> None:
        """Open the file anew before the next line, as after a rotation."""
        self._reopen = True

    def _quote(self, text: str | None) -> bytes:
        """`text` as JSON. Names of hosts, pools and keys come again; of what clients make up not much is kept."""
        quoted = json.dumps(text).encode()
        if len(self._quoted) < _QUOTED_KEPT and len(quoted) <= 100:
            self._quoted[text] = quoted
        return quoted

    # In the thread.

    def _write_all(self) -> None:
        while (block := self._blocks.get()) is not None:
            try:
                self._follow()
                self._write(block)
                if self._failed:
                    log.info("the access log %s is written again", self._path or "-")
                self._failed = False
            except OSError as error:
                self._lost += block.count(b"\n")
                if not self._failed:
                    log.error("the access log %s can't be written: %s", self._path or "-", error.strerror)
                self._failed = True
            self._done += len(block)
        if self._path is not None and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, block: bytes) -> None:
        if self._torn:
            block = b"\n" + block
        rest = memoryview(block)
        while rest:
            written = os.write(self._descriptor, rest)
            rest = rest[written:]
            # What a full disk cuts off stays a line of its own.
            self._torn = bool(rest)

    def _follow(self) -> None:
        """Open the file anew where it was moved away or taken away."""
        now = time.monotonic()
        if self._path is None or (now < self._next_look and not self._reopen):
            return
        self._next_look = now + _LOOK_S
        try:
            there, ours = self._path.stat(), os.fstat(self._descriptor)
            same = (there.st_ino, there.st_dev) == (ours.st_ino, ours.st_dev)
        except OSError:
            same = False
        if not same or self._reopen:
            self._reopen = False
            old = self._descriptor
            self._open()
            self._torn = False
            if old >= 0:
                os.close(old)

    def _open(self) -> None:
        if self._path is None:
            self._descriptor = sys.stdout.fileno()
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o640)
