"""Store: the SQLite file, and all or nothing of what is done in it.

SQLite runs in WAL mode with synchronous=FULL: an acknowledged commit survives kill -9 and power loss
(https://sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError

from fleet_controller import failpoint
from fleet_controller.journal import schema, seal

BUSY_TIMEOUT_MS = 10_000
READS = "fleet_reads_only"


class JournalError(Exception):
    """The state store can't be opened or used; the message says why and what to do."""


class JournalGone(JournalError):
    """The state store's file was deleted or replaced while it was in use: what is written goes nowhere."""


class Store:
    """The state store at `engine`. Safe to use from several threads and processes."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._file = _identity(engine.url.database)
        # SQLite lets writers in by chance: among fifty threads one could wait until its time-out.
        self._writing = threading.Lock()

    @classmethod
    def open(cls, url: str) -> Store:
        """Open (and create or migrate) the store at an SQLAlchemy `url`. Raises JournalError."""
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise JournalError(
                f"this state store can't be used: {error}; give it as sqlite:///PATH"
            ) from error
        if parsed.get_backend_name() != "sqlite":
            # Two controllers on two machines would both act; nothing fences the one that was cut off yet.
            raise JournalError(
                f"{parsed.get_backend_name()} is not available as a state store, only SQLite is; "
                "give it as sqlite:///PATH"
            )
        engine = sa.create_engine(parsed)
        _private_file(Path(parsed.database or ""))
        _tune_sqlite(engine)
        store = cls(engine)
        try:
            store._migrate()
        except schema.Newer as error:
            raise JournalError(
                f"{url}: the state store was written by a newer fleetctl ({error}); "
                "upgrade fleetctl on this machine"
            ) from error
        return store

    def close(self) -> None:
        self.engine.dispose()

    @failpoint.around("journal.migrate")
    def _migrate(self) -> None:
        with self.transaction() as connection:
            fresh = schema.revision(connection) is None
            schema.bring_up_to_date(connection, self._back_up)
            if not fresh:
                seal.put_missing(connection)

    def _back_up(self) -> None:
        """Keep the SQLite file as it is before it is migrated, beside it."""
        if self.engine.url.get_backend_name() != "sqlite" or not self.engine.url.database:
            return
        copy = Path(f"{self.engine.url.database}.before-{schema.NEWEST}")
        _private_file(copy)
        with (
            closing(sqlite3.connect(self.engine.url.database)) as source,
            closing(sqlite3.connect(copy)) as kept,
        ):
            source.backup(kept)

    @contextmanager
    def transaction(self, reads: bool = False) -> Iterator[Connection]:
        """All that is done in here, or nothing. Raises JournalError when the store fails, on a full disk for one.

        One that only `reads` waits for no writer and keeps none waiting. Raises JournalGone without the file.
        """
        if _identity(self.engine.url.database) != self._file:
            raise JournalGone(
                f"{self.engine.url.database}: the state store was deleted or replaced while it was in use; "
                "hosts and balancer are left as they are. `fleetctl up` starts a new one and takes over what runs"
            )
        try:
            with (
                nullcontext() if reads else self._writing,
                self.engine.connect().execution_options(**{READS: reads}) as connection,
                connection.begin(),
            ):
                yield connection
        except IntegrityError:
            raise
        except seal.Broken as broken:
            where = self.engine.url.database or self.engine.url.render_as_string(hide_password=True)
            raise JournalError(
                f"{where}: {broken}. Nothing is done with a damaged state store: `fleetctl state rebuild` makes it "
                "again from the hosts and keeps the old one beside it"
            ) from broken
        except DatabaseError as error:
            where = self.engine.url.render_as_string(hide_password=True)
            raise JournalError(f"{where}: the state store can't be used: {error.orig}") from error


def _identity(path: str | None) -> tuple[int, int] | None:
    """Which file lies at `path` now; None: none."""
    try:
        info = Path(path or "").stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _private_file(path: Path) -> None:
    """Folder 0700 and file 0600, so that no other user reads or replaces the state. Raises JournalError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise JournalError(
            f"{path}: the state store can't be written: {error.strerror}; "
            "give `controller.state` in fleet.yaml a place that you may write to"
        ) from error


def _tune_sqlite(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the begin event below decides, not the driver
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        _to_wal(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE: a transaction that reads and then writes can't be refused half-way
        reads = connection.get_execution_options().get(READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _to_wal(cursor: Any) -> None:
    """Several who open a fresh store at once get in each other's way here, and SQLite does not wait of itself."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
