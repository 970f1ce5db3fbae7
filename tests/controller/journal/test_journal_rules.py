"""What the journal refuses, and what it keeps together."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet_controller.journal import Busy, Journal, JournalError, KeyExists, KeyRecord, PoolRecord, schema
from fleet_controller.lifecycle import GOING_DOWN, NEXT, STARTING_UP, HostState, IllegalMove, check_move

S = HostState
FORWARD = [
    S.BOOTING,
    S.REACHABLE,
    S.INSTALLING,
    S.STARTING,
    S.LOADING,
    S.READY,
    S.DRAINING,
    S.STOPPING,
    S.OFF,
]


# moves


def test_the_life_of_a_host_is_told_by_its_events(journal: Journal) -> None:
    for at, state in enumerate(FORWARD):
        journal.move("a", state, f"because {state}", float(at))
    events = journal.events()
    assert [e.kind for e in events] == [str(s) for s in FORWARD]
    assert [e.data["from"] for e in events] == ["off", *map(str, FORWARD[:-1])]
    assert all(e.host == "a" and e.reason == f"because {e.kind}" for e in events)


@pytest.mark.parametrize("after", [S.READY, S.REACHABLE, S.LOADING, S.DRAINING, S.STOPPING])
def test_an_illegal_move_is_refused_and_changes_nothing(journal: Journal, after: HostState) -> None:
    with pytest.raises(IllegalMove, match=f"a: {after} does not follow off"):
        journal.move("a", after, "", 2.0, error="x")
    assert journal.hosts()["a"].state is S.OFF
    assert journal.hosts()["a"].error is None
    assert journal.events() == []


def test_staying_is_no_event_unless_there_is_a_new_error(journal: Journal) -> None:
    journal.move("a", S.OFF, "again", 2.0)
    assert journal.events() == []
    journal.move("a", S.FAILED, "", 3.0, error="one")
    journal.move("a", S.FAILED, "", 4.0, error="one")
    journal.move("a", S.FAILED, "", 5.0, error="two")
    assert [e.data["error"] for e in journal.events()] == ["one", "two"]
    assert journal.hosts()["a"].since == 3.0


@given(st.sampled_from(S), st.sampled_from(S))
def test_the_table_decides_and_trouble_is_always_possible(before: HostState, after: HostState) -> None:
    again = (after is S.BOOTING and before in STARTING_UP) or (after is S.DRAINING and before in GOING_DOWN)
    legal = after in NEXT[before] or after in (before, S.FAILED, S.UNREACHABLE) or again
    if legal:
        check_move("h", before, after)
    else:
        with pytest.raises(IllegalMove):
            check_move("h", before, after)


def test_every_state_has_a_way_back_to_off() -> None:
    for state in S:
        seen, ends = {state}, {state}
        while ends:
            ends = {n for e in ends for n in NEXT[e]} - seen
            seen |= ends
        assert S.OFF in seen


# actions


def test_a_host_has_at_most_one_open_action(journal: Journal) -> None:
    action = journal.begin("a", "start", "default", "why", 2.0, S.BOOTING)
    with pytest.raises(Busy):
        journal.begin("a", "stop", "default", "", 3.0, S.DRAINING)
    assert journal.open_actions() == [action]
    assert [e.kind for e in journal.events()] == ["booting"]
    journal.conclude(action, S.FAILED, "start failed", 4.0, error="no power", failures=1)
    assert journal.open_actions() == []
    record = journal.hosts()["a"]
    assert (record.state, record.error, record.failures, record.pool) == (S.FAILED, "no power", 1, "default")
    journal.begin("a", "start", "default", "", 5.0, S.BOOTING)


def test_an_intent_whose_first_state_is_illegal_is_not_recorded(journal: Journal) -> None:
    with pytest.raises(IllegalMove):
        journal.begin("a", "stop", None, "", 2.0, S.DRAINING)
    assert journal.open_actions() == []


def test_an_action_ends_together_with_its_move_or_not_at_all(journal: Journal) -> None:
    action = journal.begin("a", "start", None, "", 2.0, S.BOOTING)
    with pytest.raises(IllegalMove):
        journal.conclude(action, S.READY, "", 3.0)  # it is only booting
    assert journal.open_actions() == [action]
    assert journal.hosts()["a"].state is S.BOOTING


def test_an_unknown_host_is_a_key_error_and_leaves_no_intent(journal: Journal) -> None:
    with pytest.raises(KeyError):
        journal.begin("nobody", "start", None, "", 2.0, S.BOOTING)
    assert journal.open_actions() == []


# hosts, pools, facts


def test_enlisting_again_keeps_what_is_known(journal: Journal) -> None:
    journal.move("a", S.BOOTING, "", 2.0)
    journal.enlist(["a", "d"], 9.0)
    assert journal.hosts()["a"].state is S.BOOTING
    assert journal.hosts()["d"].since == 9.0
    assert list(journal.hosts()) == ["a", "b", "c", "d"]


def test_only_hosts_that_are_off_are_dismissed(journal: Journal) -> None:
    journal.move("a", S.BOOTING, "", 2.0)
    journal.dismiss(["a", "b", "nobody"])
    assert list(journal.hosts()) == ["a", "c"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.dictionaries(st.text(max_size=8), json_values, max_size=4))
def test_what_goes_in_comes_out(journal: Journal, said: dict[str, Any]) -> None:
    record = PoolRecord(
        "default", desired=3, paused=True, policy_state=said, learned=said, last_decision=said
    )
    journal.save_pool(record)
    journal.write_status(said)
    assert journal.pool("default") == record
    assert journal.status() == said


def test_a_pool_that_was_never_saved_is_fresh(journal: Journal) -> None:
    assert journal.pool("default") == PoolRecord("default")


def test_nobody_said_yet_is_neither_up_nor_down(journal: Journal) -> None:
    assert (journal.goal(), journal.status()) == ("", None)
    journal.set_goal("down")
    assert journal.goal() == "down"


# events


def test_events_come_oldest_first_and_the_newest_of_too_many(journal: Journal) -> None:
    for n in range(10):
        journal.record(float(n), "noise", str(n), pool="p", host="h", data={"n": n})
    assert [e.reason for e in journal.events(limit=3)] == ["7", "8", "9"]
    assert [e.reason for e in journal.events(after=8)] == ["8", "9"]
    assert [e.id for e in journal.events()] == sorted(e.id for e in journal.events())
    assert journal.events(after=10) == []
    newest = journal.events()[-1]
    assert (newest.kind, newest.pool, newest.host, newest.at) == ("noise", "p", "h", 9.0)
    assert newest.data == {"n": 9}


# requests


def test_requests_wait_in_order_until_they_are_answered(journal: Journal) -> None:
    first, second, third = journal.ask("scale", pool="p", servers=2), journal.ask("down"), journal.ask("up")
    journal.withdraw(second)
    waiting = journal.asked()
    assert [(r.id, r.kind, r.args) for r in waiting] == [
        (first, "scale", {"pool": "p", "servers": 2}),
        (third, "up", {}),
    ]
    answer = journal.answer(first)
    assert answer is not None
    assert not answer.done
    journal.reply(waiting[0], 5.0, False, "no")
    assert journal.answer(first) is not None
    answered = journal.answer(first)
    assert answered is not None
    assert (answered.done, answered.ok, answered.message) == (True, False, "no")
    journal.withdraw(first)  # too late
    assert journal.answer(first) == answered


# the file


def test_the_store_is_private_and_survives_power_loss(journal: Journal, url: str) -> None:
    file = Path(url.removeprefix("sqlite:///"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    for sibling in file.parent.iterdir():
        assert stat.S_IMODE(sibling.stat().st_mode) == 0o600, sibling
    with journal._store.engine.connect() as connection:  # synchronous is a setting of each connection
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 10_000


def test_a_store_of_a_newer_fleetctl_is_refused(journal: Journal, url: str) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(JournalError, match=r"newer fleetctl.*9999.*upgrade fleetctl") as refusal:
        Journal.open(url)
    assert "\n" not in str(refusal.value)


def test_the_steps_files_are_named_by_their_revisions() -> None:
    script = ScriptDirectory(str(schema.MIGRATIONS))
    assert {step.revision for step in script.walk_revisions()} == schema.KNOWN
    assert script.get_current_head() == schema.NEWEST


def test_only_a_store_that_is_to_be_migrated_needs_alembic(journal: Journal, url: str) -> None:
    program = (
        "import sys; from fleet_controller.journal import Journal; Journal.open(sys.argv[1]).close(); "
        "print('alembic' in sys.modules)"
    )
    for store, needed in ((url, False), (f"{url}.fresh", True)):
        done = subprocess.run(
            [sys.executable, "-c", program, store], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{needed}\n"


def test_a_store_of_an_older_fleetctl_is_brought_up_and_keeps_what_it_held(
    journal: Journal, url: str
) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        for newer in ("api_keys", "decisions", "traffic", "pool_texts"):
            connection.execute(f"DROP TABLE {newer}")
        for sealed in ("hosts", "pools", "actions"):
            connection.execute(f"ALTER TABLE {sealed} DROP COLUMN checksum")
        connection.execute("ALTER TABLE hosts DROP COLUMN boot_s")
        connection.execute("ALTER TABLE hosts DROP COLUMN unproven")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    connection.close()
    again = Journal.open(url)
    assert sorted(again.hosts()) == ["a", "b", "c"]
    again.add_key(KeyRecord("alice", "ab" * 32, 1.0))
    assert again.api_keys() == [KeyRecord("alice", "ab" * 32, 1.0)]
    assert again.decisions("default", 1e9) == again.traffic("default") == []
    again.close()


def test_a_key_is_there_once_until_it_is_revoked(journal: Journal) -> None:
    key = KeyRecord("alice", "ab" * 32, 5.0, 10.0, 20, 2.5, ("one", "two"))
    journal.add_key(key)
    for twin in (key, replace(key, sha256="cd" * 32), replace(key, name="bob")):
        with pytest.raises(KeyExists):
            journal.add_key(twin)
    assert journal.api_keys() == [key]
    assert journal.revoke_key("alice", 6.0) and not journal.revoke_key("alice", 7.0)
    assert journal.api_keys() == []
    assert [(e.at, e.kind, e.reason) for e in journal.events()][-2:] == [
        (5.0, "key", "API key alice was created"),
        (6.0, "key", "API key alice was revoked"),
    ]


PLACES = {
    "a file where the folder should be": "sqlite:///{folder}/file/state.db",
    "a folder that nobody can make": "sqlite:////proc/nowhere/state.db",
    "a folder": "sqlite:///{folder}",
    "no database": "sqlite:///{folder}/garbage.db",
    "a full disk": "sqlite:////dev/full",
    "no URL": "nonsense",
    "another database": "mysql://root:secret@127.0.0.1/x",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_an_unusable_place_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "garbage.db").write_bytes(b"not a database at all " * 500)
    with pytest.raises(JournalError) as refusal:
        Journal.open(place.format(folder=tmp_path))
    assert "\n" not in str(refusal.value)
    assert "secret" not in str(refusal.value)
