"""Long texts of a pool's memory, each in a row of its own: written when it changes, not with every decision.

A policy remembers eight days of arrivals in one text of 31 kB that changes once a minute, and decides every few
seconds. In the pool's row stands the text's digest in its place. Both are written in one transaction, and the digest
is the text's checksum, as the row's own covers the digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fleet_controller.journal.seal import Broken
from fleet_controller.journal.tables import pool_texts

LONG = 1024  # characters; what is shorter stays in the row
MARK = "$text"


def put_away(connection: Connection, pool: str, memory: Any) -> Any:
    """`memory` with its long texts replaced by their digests; the texts are kept, those of before dropped."""
    found: dict[str, str] = {}
    short = _shortened(memory, found)
    mine = pool_texts.c.pool == pool
    known = set(connection.scalars(sa.select(pool_texts.c.digest).where(mine)))
    if gone := known - set(found):
        connection.execute(sa.delete(pool_texts).where(mine, pool_texts.c.digest.in_(gone)))
    if new := [{"pool": pool, "digest": d, "text": text} for d, text in found.items() if d not in known]:
        connection.execute(sa.insert(pool_texts), new)
    return short


def brought_back(connection: Connection, pool: str, memory: Any) -> Any:
    """The opposite of `put_away`. Raises Broken where a text is damaged or missing."""
    if not (wanted := _digests(memory)):
        return memory
    query = sa.select(pool_texts.c.digest, pool_texts.c.text).where(pool_texts.c.pool == pool)
    texts = {digest: text for digest, text in connection.execute(query) if _digest(text) == digest}
    if missing := wanted - set(texts):
        raise Broken(f"the row {pool!r}, {min(missing)!r} of {pool_texts.name} is damaged or missing")
    return _restored(memory, texts)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def _shortened(value: Any, found: dict[str, str]) -> Any:
    if isinstance(value, str) and len(value) >= LONG:
        digest = _digest(value)
        found[digest] = value
        return {MARK: digest}
    if isinstance(value, dict):
        return {key: _shortened(item, found) for key, item in value.items()}
    return value


def _digests(value: Any) -> set[str]:
    if not isinstance(value, dict):
        return set()
    if set(value) == {MARK}:
        return {str(value[MARK])}
    return set().union(*(_digests(item) for item in value.values()))


def _restored(value: Any, texts: Mapping[str, str]) -> Any:
    if not isinstance(value, dict):
        return value
    if set(value) == {MARK}:
        return texts[str(value[MARK])]
    return {key: _restored(item, texts) for key, item in value.items()}
