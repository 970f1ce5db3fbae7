"""Rows that the controller acts on carry a checksum: bits that flip on the disk are noticed, and said which row."""

from __future__ import annotations

import random
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_controller.journal import Journal, JournalError, KeyRecord, PoolRecord
from fleet_controller.journal.seal import seal_of
from fleet_controller.lifecycle import HostState, Quarantine


def database(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def spoil(url: str, statement: str) -> None:
    connection = sqlite3.connect(database(url))
    with connection:
        connection.execute(statement)
    connection.close()


def seal_as_it_is(url: str) -> None:
    """Seal the hosts' rows with the columns that there are, as an older fleetctl did."""
    with sqlite3.connect(database(url)) as connection:
        connection.row_factory = sqlite3.Row
        for row in connection.execute("SELECT * FROM hosts").fetchall():
            content = {key: row[key] for key in row.keys() if key != "checksum"}  # noqa: SIM118
            content["cordoned"] = bool(content["cordoned"])
            connection.execute(
                "UPDATE hosts SET checksum = ? WHERE name = ?", (seal_of(content), row["name"])
            )
    connection.close()


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("UPDATE hosts SET state = 'ready' WHERE name = 'b'", "the row 'b' of hosts is damaged"),
        ("UPDATE hosts SET failures = 1 WHERE name = 'b'", "the row 'b' of hosts is damaged"),
        ("UPDATE hosts SET checksum = NULL WHERE name = 'b'", "the row 'b' of hosts is damaged"),
        ("UPDATE pools SET desired = 0", "the row 'default' of pools is damaged"),
        ("UPDATE actions SET kind = 'stop'", "of actions is damaged"),
        ("UPDATE api_keys SET rate_per_s = 9e9", "the row 'shop' of api_keys is damaged"),
    ],
)
def test_a_changed_row_is_refused_by_name_and_says_what_to_do(
    journal: Journal, url: str, statement: str, row: str
) -> None:
    journal.begin("a", "start", "default", "why", 2.0, HostState.BOOTING)
    journal.save_pool(PoolRecord("default", desired=3))
    journal.add_key(KeyRecord("shop", "0" * 64, 1.0))

    def read() -> None:
        journal.hosts(), journal.pool("default"), journal.open_actions(), journal.api_keys()

    read()
    spoil(url, statement)
    with pytest.raises(JournalError, match=row) as told:
        read()
    assert "`fleetctl state rebuild` makes it again from the hosts" in str(told.value)


def test_a_damaged_row_is_not_sealed_again_by_the_next_change(journal: Journal, url: str) -> None:
    spoil(url, "UPDATE hosts SET failures = 4 WHERE name = 'b'")
    for change in (
        lambda: journal.amend("b", cordoned=True),
        lambda: journal.move("b", HostState.BOOTING, "", 3.0),
        lambda: journal.begin("b", "start", None, "", 3.0, HostState.BOOTING),
    ):
        with pytest.raises(JournalError, match="'b' of hosts"):
            change()
    journal.move("a", HostState.BOOTING, "", 3.0)  # the others are as well as before


def test_flipped_bits_are_never_read_as_another_truth(journal: Journal, url: str, tmp_path: Path) -> None:
    for name in "abc":
        journal.amend(name, release=f"release-{name}", startup_s=12.5, retry_at=1_790_000_000.0)
    truth = journal.hosts()
    journal.close()
    spoil(url, "PRAGMA wal_checkpoint(TRUNCATE)")
    whole, dice = database(url).read_bytes(), random.Random(4)
    silent = noticed = 0
    for n in range(60):
        bits = bytearray(whole)
        at = dice.randrange(len(bits))
        bits[at] ^= 1 << dice.randrange(8)
        copy = tmp_path / f"{n}.db"
        copy.write_bytes(bits)
        try:
            opened = Journal.open(f"sqlite:///{copy}")
        except Exception:  # however SQLite or alembic takes it: it was noticed
            noticed += 1
            continue
        try:
            silent += {**truth, **opened.hosts()} != truth
        except (JournalError, KeyError, ValueError):
            noticed += 1
        finally:
            opened.close()
        copy.unlink()
    assert silent == 0
    assert noticed > 0


def test_an_older_store_is_backed_up_and_sealed_when_it_is_migrated(journal: Journal, url: str) -> None:
    truth = journal.hosts()
    journal.close()
    for table in ("hosts", "pools", "actions", "api_keys"):
        spoil(url, f"ALTER TABLE {table} DROP COLUMN checksum")
    spoil(url, "DROP TABLE pool_texts")
    spoil(url, "ALTER TABLE hosts DROP COLUMN boot_s")
    spoil(url, "ALTER TABLE hosts DROP COLUMN unproven")
    spoil(url, "UPDATE alembic_version SET version_num = '0003'")
    again = Journal.open(url)
    assert again.hosts() == truth
    again.close()
    [kept] = database(url).parent.glob("state.db.before-*")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    backup = sqlite3.connect(kept)
    assert backup.execute("SELECT version_num FROM alembic_version").fetchall() == [("0003",)]
    assert backup.execute("SELECT count(*) FROM hosts").fetchone() == (3,)
    backup.close()


def test_a_row_that_was_damaged_before_a_migration_is_not_sealed_by_it(journal: Journal, url: str) -> None:
    """0006 and 0007 add a column to sealed rows: what was whole is sealed anew, and nothing else."""
    names = sorted(journal.hosts())
    journal.close()
    for column in ("boot_s", "unproven"):
        spoil(url, f"ALTER TABLE hosts DROP COLUMN {column}")
    seal_as_it_is(url)
    spoil(url, "UPDATE alembic_version SET version_num = '0005'")
    spoil(url, f"UPDATE hosts SET failures = 7 WHERE name = '{names[0]}'")
    again = Journal.open(url)
    with pytest.raises(JournalError, match=f"the row '{names[0]}' of hosts is damaged"):
        again.hosts()
    assert [again.host(name).name for name in names[1:]] == names[1:]
    again.close()


def test_an_older_store_knows_which_hosts_are_not_proven_to_be_free(journal: Journal, url: str) -> None:
    """Until 0006 only the words of the error said so."""
    words = "{}: quarantined: it is not proven to be free, so nothing is started there. pid 7 holds its port"
    journal.amend("a", state=HostState.FAILED.value, failures=5, error=words.format("a"))
    journal.amend("b", state=HostState.FAILED.value, failures=5, error=words.format("b"))
    journal.amend("c", state=HostState.FAILED.value, failures=6, error="c: quarantined for 60 min")
    truth = journal.hosts()
    journal.close()
    spoil(url, "ALTER TABLE hosts DROP COLUMN unproven")
    seal_as_it_is(url)
    spoil(url, "UPDATE alembic_version SET version_num = '0006'")
    spoil(url, "UPDATE hosts SET failures = 7 WHERE name = 'b'")
    again = Journal.open(url)
    assert again.host("a") == replace(truth["a"], unproven=True)
    assert again.host("a").quarantine is Quarantine.UNPROVEN
    assert again.host("c") == truth["c"] and truth["c"].quarantine is Quarantine.FAILURES
    with pytest.raises(JournalError, match="the row 'b' of hosts is damaged"):
        again.host("b")
    again.close()
