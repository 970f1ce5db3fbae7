"""What a person does about the state store: see, check and copy it, give it up and begin again."""

from __future__ import annotations

import random
import sqlite3
import stat
from pathlib import Path

import pytest

from fleet_controller.journal import Journal, JournalError, KeyRecord, PoolRecord, upkeep
from fleet_controller.journal.upkeep import Saved

LONG = "x" * 5000


def database(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def spoil(url: str, statement: str) -> None:
    connection = sqlite3.connect(database(url))
    with connection:
        connection.execute(statement)
    connection.close()


@pytest.fixture
def full(journal: Journal) -> Journal:
    """A journal with a row of each kind."""
    journal.add_key(KeyRecord("shop", "0" * 64, 1.0, pools=("default",)))
    journal.add_key(KeyRecord("lab", "1" * 64, 2.0))
    journal.save_pool(
        PoolRecord("default", desired=2, paused=True, policy_state={"arrivals": {"codes": LONG}})
    )
    journal.set_goal("down")
    journal.record(7.0, "up", "asked")
    return journal


def test_what_there_is_is_told(full: Journal, url: str) -> None:
    told = upkeep.facts(database(url))
    assert told.revision == told.newest
    assert (told.rows["hosts"], told.rows["api_keys"], told.rows["pool_texts"]) == (3, 2, 1)
    assert told.bytes == database(url).stat().st_size and told.wal_bytes > 0
    assert told.first_event_at == 1.0
    assert upkeep.problems(database(url)) == []


def test_every_damaged_row_is_named(full: Journal, url: str) -> None:
    spoil(url, "UPDATE hosts SET failures = 9 WHERE name != 'b'")
    spoil(url, "UPDATE api_keys SET pools = '{nonsense' WHERE name = 'lab'")
    spoil(url, "UPDATE pool_texts SET text = 'y'")
    found = upkeep.problems(database(url))
    assert len(found) == 4
    for row, text in zip(
        ("'a' of hosts", "'c' of hosts", "of pool_texts", "'lab' of api_keys"), found, strict=True
    ):
        assert row in text


def test_flipped_bits_are_told_wherever_they_hurt(full: Journal, url: str, tmp_path: Path) -> None:
    full.close()
    spoil(url, "PRAGMA wal_checkpoint(TRUNCATE)")
    whole, dice = database(url).read_bytes(), random.Random(3)
    copy = tmp_path / "copy.db"
    copy.write_bytes(whole)
    truth = upkeep.salvage(copy)
    for _ in range(60):
        bits = bytearray(whole)
        bits[dice.randrange(len(bits))] ^= 1 << dice.randrange(8)
        copy.write_bytes(bits)
        saved = upkeep.salvage(copy)
        assert set(saved.keys) <= set(truth.keys)  # what is believed is true
        if saved != truth and saved.goal == truth.goal:
            assert upkeep.problems(copy)


def test_no_store_and_no_database_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no state store yet"):
        upkeep.problems(tmp_path / "state.db")
    (tmp_path / "state.db").write_text("this is a letter to my bank\n" * 100)
    assert "file is not a database" in upkeep.problems(tmp_path / "state.db")[0]
    assert upkeep.salvage(tmp_path / "state.db") == Saved()


def test_a_copy_is_of_one_moment_private_and_never_over_another(
    full: Journal, url: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    upkeep.back_up(database(url), copy)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert upkeep.problems(copy) == []
    again = Journal.open(f"sqlite:///{copy}")
    assert again.hosts() == full.hosts() and again.pool("default") == full.pool("default")
    again.close()
    with pytest.raises(JournalError, match="is there already"):
        upkeep.back_up(database(url), copy)
    with pytest.raises(JournalError, match="there is no state store yet"):
        upkeep.back_up(tmp_path / "none.db", tmp_path / "other.db")


def test_a_store_that_is_given_up_is_kept_and_what_is_whole_of_it_goes_on(full: Journal, url: str) -> None:
    truth, keys = full.pool("default"), full.api_keys()
    full.close()
    spoil(url, "UPDATE hosts SET state = 'ready'")
    spoil(url, "UPDATE api_keys SET rate_per_s = 1e9 WHERE name = 'lab'")
    saved = upkeep.salvage(database(url))
    kept = upkeep.set_aside(database(url), 1_790_000_000.0)
    assert kept is not None and kept.name == "state.db.2026-09-21T14-13-20Z" and kept.exists()
    assert not database(url).exists()
    fresh = Journal.open(url)
    upkeep.put_back(saved, fresh)
    assert fresh.hosts() == {} and fresh.goal() == "down"
    assert fresh.pool("default") == truth
    assert fresh.api_keys() == [key for key in keys if key.name == "shop"]
    fresh.close()
    assert upkeep.set_aside(database(url).with_name("none.db"), 1.0) is None


def test_only_sqlite_is_taken_and_the_message_holds_no_password() -> None:
    with pytest.raises(
        JournalError, match="postgresql is not available as a state store, only SQLite is"
    ) as told:
        Journal.open("postgresql+psycopg://fleet:hunter2@db/fleet")
    assert "hunter2" not in str(told.value)
