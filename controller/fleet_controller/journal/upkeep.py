"""Upkeep: what a person does about the state store itself. See it, check it, copy it, set a damaged one aside.

Unlike Journal this opens the file as it is: nothing is made, migrated or mended. SQLite only.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from fleet_controller.journal import schema, seal, tables, texts
from fleet_controller.journal.journal import Journal
from fleet_controller.journal.store import JournalError
from fleet_controller.records import KeyRecord, PoolRecord

SQLITE = "sqlite:///"
SIDES = ("-wal", "-shm")  # what SQLite keeps beside its file
MOST_PROBLEMS = 100  # of SQLite's own check


@dataclass(frozen=True)
class Facts:
    """`revision` is the schema's, `newest` the one that this fleetctl writes; `rows` are counted by table."""

    path: Path
    bytes: int
    wal_bytes: int
    revision: str | None
    newest: str
    rows: dict[str, int]
    first_event_at: float | None


@dataclass(frozen=True)
class Saved:
    """What could be read of a store that is given up, its checksums right. `goal` "": nothing was said."""

    goal: str = ""
    keys: tuple[KeyRecord, ...] = ()
    pools: tuple[PoolRecord, ...] = ()


def facts(path: Path) -> Facts:
    """What there is. Raises JournalError where it can't be read."""
    with _opened(path) as connection:
        there = set(sa.inspect(connection).get_table_names())
        rows = {
            table.name: int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)
            for table in tables.metadata.sorted_tables
            if table.name in there
        }
        first = connection.scalar(sa.select(sa.func.min(tables.events.c.at))) if "events" in there else None
        revision = schema.revision(connection)
    wal = path.with_name(path.name + "-wal")
    wal_bytes = wal.stat().st_size if wal.exists() else 0
    return Facts(path, path.stat().st_size, wal_bytes, revision, schema.NEWEST, rows, first)


def problems(path: Path) -> list[str]:
    """All that is wrong with it, a sentence each; empty: it is whole. Raises JournalError where it is not there."""
    try:
        with _opened(path) as connection:
            said = [
                str(row[0]) for row in connection.exec_driver_sql(f"PRAGMA integrity_check({MOST_PROBLEMS})")
            ]
            found = [f"SQLite: {line}" for text in said for line in text.splitlines() if line != "ok"]
            there = set(sa.inspect(connection).get_table_names())
            missing = [table.name for table in seal.SEALED if table.name not in there]
            found += [f"there is no table {name}" for name in missing]
            revision = schema.revision(connection)
            if revision != schema.NEWEST:
                return [*found, *_unknown(revision)]
            for table in seal.SEALED:
                if table.name in there:
                    found += _damaged(connection, table)
            return found
    except JournalError as error:
        if not path.exists():
            raise
        return [str(error)]


def back_up(path: Path, copy: Path) -> None:
    """A copy of one moment, made while others write. Raises JournalError, also where `copy` is there already."""
    if not path.exists():
        raise JournalError(f"{path}: there is no state store yet")
    try:
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError as error:
        raise JournalError(f"{copy} is there already; choose another name, or remove it") from error
    except OSError as error:
        raise JournalError(f"{copy}: the copy can't be written: {error.strerror}") from error
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as kept:
            source.backup(kept)
    except sqlite3.Error as error:
        copy.unlink(missing_ok=True)
        raise JournalError(f"{path}: it can't be copied: {error}; see `fleetctl state check`") from error


def set_aside(path: Path, now: float) -> Path | None:
    """Move the file, and what SQLite keeps beside it, to a name with the date; where it is now. None: there is none."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    aside = path.with_name(f"{path.name}.{stamp}")
    kept = None
    for side in ("", *SIDES):
        old = path.with_name(path.name + side)
        if old.exists():
            old.replace(aside.with_name(aside.name + side))
            kept = aside
    return kept


def salvage(path: Path) -> Saved:
    """What can still be believed of a damaged store: API keys, pools and whether the fleet was to run."""
    goal: str = ""
    keys: list[KeyRecord] = []
    pools: list[PoolRecord] = []
    try:
        with _opened(path) as connection:
            for row in _sound(connection, tables.api_keys):
                keys.append(KeyRecord(**{**row, "pools": tuple(row["pools"])}))
            for row in _sound(connection, tables.pools):
                memory = texts.brought_back(connection, row["name"], row["policy_state"])
                pools.append(PoolRecord(**{**row, "policy_state": memory}))
            told = connection.scalar(sa.select(tables.facts.c.value).where(tables.facts.c.name == "goal"))
            goal = told if told in ("up", "down") else ""
    except (JournalError, SQLAlchemyError, seal.Broken, ValueError):
        pass  # what was read until then is what there is
    return Saved(goal, tuple(keys), tuple(pools))


def put_back(saved: Saved, journal: Journal) -> None:
    """Write into a fresh store what was saved of the old one."""
    for key in saved.keys:
        journal.add_key(key)
    for pool in saved.pools:
        journal.save_pool(pool)
    if saved.goal:
        journal.set_goal(saved.goal)


def _unknown(revision: str | None) -> list[str]:
    if revision in schema.KNOWN:
        return []  # an older one is migrated, and sealed, at the next start
    return [f"its schema is revision {revision}, which this fleetctl does not know; upgrade fleetctl"]


def _damaged(connection: Connection, table: sa.Table) -> list[str]:
    found = []
    for key in _keys(connection, table):
        try:
            row = _row(connection, table, key)
            content = seal.opened(table, row)
            if table is tables.pools:
                texts.brought_back(connection, str(row["name"]), content["policy_state"])
        except seal.Broken as broken:
            found.append(str(broken))
        except (SQLAlchemyError, ValueError) as error:  # a flipped bit in JSON or in a number
            found.append(f"the row {', '.join(map(str, key))!r} of {table.name} can't be read: {error}")
    return found


def _sound(connection: Connection, table: sa.Table) -> Iterator[dict[str, Any]]:
    for key in _keys(connection, table):
        try:
            yield seal.opened(table, _row(connection, table, key))
        except (seal.Broken, SQLAlchemyError, ValueError):
            continue


def _keys(connection: Connection, table: sa.Table) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute(sa.select(*table.primary_key))]


def _row(connection: Connection, table: sa.Table, key: tuple[Any, ...]) -> sa.RowMapping:
    here = [column == value for column, value in zip(table.primary_key, key, strict=True)]
    return connection.execute(sa.select(table).where(*here)).mappings().one()


@contextmanager
def _opened(path: Path) -> Iterator[Connection]:
    """The file as it is, to read. Raises JournalError."""
    if not path.exists():
        raise JournalError(f"{path}: there is no state store yet; `fleetctl up` makes it")
    engine = sa.create_engine(f"{SQLITE}{path}", poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    except DatabaseError as error:
        raise JournalError(f"{path}: the state store can't be read: {error.orig}") from error
    finally:
        engine.dispose()
