"""What a pool remembers of eight days is long: it is written when it changes, and read back as it was."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fleet_controller.journal import Journal, JournalError, PoolRecord

LONG = "Ab0/" * 8000


def rows(url: str, query: str) -> list[Any]:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    with connection:
        found = connection.execute(query).fetchall()
    connection.close()
    return found


def memory(codes: str, peak: float = 1.0) -> dict[str, Any]:
    return {"desired": 2, "arrivals": {"minute": 5, "peak": peak, "codes": codes}, "highs": [[1.0, 2]]}


def wal(url: str) -> int:
    return Path(url.removeprefix("sqlite:///") + "-wal").stat().st_size


def test_a_long_text_comes_back_as_it_was_and_only_once_a_change_is_it_written(
    journal: Journal, url: str
) -> None:
    journal.save_pool(PoolRecord("default", policy_state=memory(LONG)))
    assert journal.pool("default").policy_state == memory(LONG)
    rows(url, "PRAGMA wal_checkpoint(TRUNCATE)")
    for n in range(10):
        journal.save_pool(PoolRecord("default", policy_state=memory(LONG, peak=1.5**n)))
    assert wal(url) < 10 * 3 * 4200  # three pages each, where the text alone has eight
    assert journal.pool("default").policy_state == memory(LONG, peak=1.5**9)
    journal.save_pool(PoolRecord("default", policy_state=memory(LONG + "x")))
    assert journal.pool("default").policy_state == memory(LONG + "x")
    assert rows(url, "SELECT count(*) FROM pool_texts") == [(1,)]
    journal.save_pool(PoolRecord("default"))
    assert rows(url, "SELECT count(*) FROM pool_texts") == [(0,)]
    assert journal.pool("default").policy_state == {}


def test_pools_with_the_same_memory_do_not_share_it(journal: Journal) -> None:
    for name in ("a", "b"):
        journal.save_pool(PoolRecord(name, policy_state=memory(LONG)))
    journal.save_pool(PoolRecord("a"))
    assert journal.pool("b").policy_state == memory(LONG)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE pool_texts SET text = substr(text, 1, 100) || 'Q' || substr(text, 102)",
        "DELETE FROM pool_texts",
    ],
)
def test_a_damaged_or_missing_text_is_noticed(journal: Journal, url: str, damage: str) -> None:
    journal.save_pool(PoolRecord("default", policy_state=memory(LONG)))
    rows(url, damage)
    with pytest.raises(JournalError, match="of pool_texts is damaged or missing"):
        journal.pool("default")


def test_what_an_older_fleetctl_wrote_in_one_row_is_read(journal: Journal, url: str) -> None:
    short = {"arrivals": {"codes": "abc"}, "desired": 1}
    journal.save_pool(PoolRecord("default", policy_state=short))
    assert rows(url, "SELECT count(*) FROM pool_texts") == [(0,)]
    assert journal.pool("default").policy_state == short
