"""Journal: the one place that knows SQL.

Every change of a host's state is one transaction together with its event, and an action's intent is
recorded before its effect. SQLite runs in WAL mode with synchronous=FULL: an acknowledged commit
survives kill -9 and power loss (https://sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError

from fleet_controller import failpoint
from fleet_controller.journal import history, schema, seal, tables, texts
from fleet_controller.lifecycle import HostState, check_move
from fleet_controller.records import (
    UNKNOWN_ACTION,
    Action,
    ActionKind,
    Answer,
    DecisionRecord,
    Event,
    HostRecord,
    KeyRecord,
    Mark,
    Minute,
    PoolRecord,
    Request,
)

BUSY_TIMEOUT_MS = 10_000
EVENTS_KEPT = 100_000
READS = "fleet_reads_only"


class JournalError(Exception):
    """The state store can't be opened or used; the message says why and what to do."""


class JournalGone(JournalError):
    """The state store's file was deleted or replaced while it was in use: what is written goes nowhere."""


class Busy(Exception):
    """The host has an open action already."""


class KeyExists(Exception):
    """There is an API key of this name already."""


class Journal:
    """The state store at `engine`. Safe to use from several threads and processes."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._file = _identity(engine.url.database)
        # SQLite lets writers in by chance: among fifty threads one could wait until its time-out.
        self._writing = threading.Lock()

    @classmethod
    def open(cls, url: str) -> Journal:
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
        journal = cls(engine)
        try:
            journal._migrate()
        except schema.Newer as error:
            raise JournalError(
                f"{url}: the state store was written by a newer fleetctl ({error}); "
                "upgrade fleetctl on this machine"
            ) from error
        return journal

    def close(self) -> None:
        self._engine.dispose()

    @failpoint.around("journal.migrate")
    def _migrate(self) -> None:
        with self._transaction() as connection:
            fresh = schema.revision(connection) is None
            schema.bring_up_to_date(connection, self._back_up)
            if not fresh:
                seal.put_missing(connection)

    def _back_up(self) -> None:
        """Keep the SQLite file as it is before it is migrated, beside it."""
        if self._engine.url.get_backend_name() != "sqlite" or not self._engine.url.database:
            return
        copy = Path(f"{self._engine.url.database}.before-{schema.NEWEST}")
        _private_file(copy)
        with (
            closing(sqlite3.connect(self._engine.url.database)) as source,
            closing(sqlite3.connect(copy)) as kept,
        ):
            source.backup(kept)

    @contextmanager
    def _transaction(self, reads: bool = False) -> Iterator[Connection]:
        """All that is done in here, or nothing. Raises JournalError when the store fails, on a full disk for one.

        One that only `reads` waits for no writer and keeps none waiting. Raises JournalGone without the file.
        """
        if _identity(self._engine.url.database) != self._file:
            raise JournalGone(
                f"{self._engine.url.database}: the state store was deleted or replaced while it was in use; "
                "hosts and balancer are left as they are. `fleetctl up` starts a new one and takes over what runs"
            )
        try:
            with (
                nullcontext() if reads else self._writing,
                self._engine.connect().execution_options(**{READS: reads}) as connection,
                connection.begin(),
            ):
                yield connection
        except IntegrityError:
            raise
        except seal.Broken as broken:
            where = self._engine.url.database or self._engine.url.render_as_string(hide_password=True)
            raise JournalError(
                f"{where}: {broken}. Nothing is done with a damaged state store: `fleetctl state rebuild` makes it "
                "again from the hosts and keeps the old one beside it"
            ) from broken
        except DatabaseError as error:
            where = self._engine.url.render_as_string(hide_password=True)
            raise JournalError(f"{where}: the state store can't be used: {error.orig}") from error

    # hosts

    def hosts(self) -> dict[str, HostRecord]:
        """Every host by its name."""
        with self._transaction(reads=True) as connection:
            rows = connection.execute(sa.select(tables.hosts).order_by(tables.hosts.c.name)).mappings()
            return {row["name"]: _host(row) for row in rows}

    def host(self, name: str) -> HostRecord:
        """One host. Raises KeyError for an unknown one."""
        with self._transaction(reads=True) as connection:
            return self._read_host(connection, name)

    def _read_host(self, connection: Connection, name: str) -> HostRecord:
        query = sa.select(tables.hosts).where(tables.hosts.c.name == name)
        row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise KeyError(name)
        return _host(row)

    @failpoint.around("journal.enlist")
    def enlist(self, names: Iterable[str], now: float, suspects: Container[str] = ()) -> None:
        """Make sure that each named host has a record; new ones are off.

        Of `suspects` nothing is known, for the journal was lost: they count as unreachable until they were looked at.
        """
        with self._transaction() as connection:
            known = set(connection.scalars(sa.select(tables.hosts.c.name)))
            new = [
                {
                    "name": n,
                    "state": "unreachable" if n in suspects else "off",
                    "since": now,
                    "reason": "the state store does not know it; it is looked at first"
                    if n in suspects
                    else "",
                    "action_id": UNKNOWN_ACTION if n in suspects else None,
                    "failures": 0,
                    "retry_at": 0.0,
                    "cordoned": False,
                    "unproven": False,
                }
                for n in names
                if n not in known
            ]
            if new:
                connection.execute(sa.insert(tables.hosts), new)
                seal.put(connection, tables.hosts, tables.hosts.c.name.in_([row["name"] for row in new]))

    @failpoint.around("journal.dismiss")
    def dismiss(self, names: Iterable[str]) -> None:
        """Forget hosts that left fleet.yaml; only those that are off are ever dismissed."""
        with self._transaction() as connection:
            connection.execute(
                sa.delete(tables.hosts).where(
                    tables.hosts.c.name.in_(list(names)), tables.hosts.c.state == "off"
                )
            )

    @failpoint.around("journal.move")
    def move(self, name: str, state: HostState, reason: str, now: float, **changes: Any) -> HostRecord:
        """Take a host to `state` and record the event, in one transaction.

        `changes` sets further fields of the record; another `error`, or none, is not of a host that is `unproven`
        unless it says so. Raises IllegalMove where the state can't follow, KeyError for an unknown host.
        """
        with self._transaction() as connection:
            return self._move(connection, name, state, reason, now, **changes)

    def _move(
        self, connection: Connection, name: str, state: HostState, reason: str, now: float, **changes: Any
    ) -> HostRecord:
        before = self._read_host(connection, name)
        check_move(name, before.state, state)
        values: dict[str, Any] = {**({"unproven": False} if "error" in changes else {}), **changes}
        if state is not before.state:
            values |= {"state": state.value, "since": now, "reason": reason}
        if values:
            connection.execute(sa.update(tables.hosts).where(tables.hosts.c.name == name).values(**values))
            seal.put(connection, tables.hosts, tables.hosts.c.name == name)
        if state is not before.state or (changes.get("error") and changes["error"] != before.error):
            data = {"from": before.state.value}
            if changes.get("error"):
                data["error"] = changes["error"]
            pool = changes.get("pool", before.pool)
            self._record(connection, now, state.value, pool, name, reason, data)
        return self._read_host(connection, name)

    @failpoint.around("journal.amend")
    def amend(self, name: str, **changes: Any) -> None:
        """Set fields of a host's record without a move and without an event."""
        with self._transaction() as connection:
            self._read_host(connection, name)  # a damaged row must not be sealed again
            connection.execute(sa.update(tables.hosts).where(tables.hosts.c.name == name).values(**changes))
            seal.put(connection, tables.hosts, tables.hosts.c.name == name)

    # actions

    @failpoint.around("journal.begin")
    def begin(
        self,
        host: str,
        kind: ActionKind,
        pool: str | None,
        reason: str,
        now: float,
        state: HostState,
    ) -> Action:
        """Record the intent to start or stop a host and its first state, in one transaction. Raises Busy."""
        action = Action(id=uuid.uuid4().hex, host=host, kind=kind, reason=reason, created_at=now)
        try:
            with self._transaction() as connection:
                connection.execute(
                    sa.insert(tables.actions).values(
                        id=action.id, host=host, kind=kind, reason=reason, created_at=now
                    )
                )
                seal.put(connection, tables.actions, tables.actions.c.id == action.id)
                self._move(connection, host, state, reason, now, pool=pool)
        except IntegrityError as error:
            raise Busy(host) from error
        return action

    @failpoint.around("journal.conclude")
    def conclude(
        self,
        action: Action,
        state: HostState,
        reason: str,
        now: float,
        error: str | None = None,
        **changes: Any,
    ) -> None:
        """Close an action, its effect seen or failed with `error`, and take its host to `state`: one transaction."""
        with self._transaction() as connection:
            connection.execute(
                sa.update(tables.actions)
                .where(tables.actions.c.id == action.id)
                .values(finished_at=now, error=error)
            )
            seal.put(connection, tables.actions, tables.actions.c.id == action.id)
            self._move(connection, action.host, state, reason, now, error=error, **changes)

    def open_actions(self) -> list[Action]:
        """Actions whose end is not recorded: those of this run, or left by one that was killed."""
        with self._transaction(reads=True) as connection:
            query = sa.select(tables.actions).where(tables.actions.c.finished_at.is_(None))
            rows = connection.execute(query.order_by(tables.actions.c.created_at)).mappings()
            found = [seal.opened(tables.actions, row) for row in rows]
        return [Action(r["id"], r["host"], r["kind"], r["reason"], r["created_at"]) for r in found]

    # pools

    def pool(self, name: str) -> PoolRecord:
        """A pool's record; a fresh one where it has none."""
        with self._transaction(reads=True) as connection:
            row = (
                connection.execute(sa.select(tables.pools).where(tables.pools.c.name == name))
                .mappings()
                .one_or_none()
            )
            if row is None:
                return PoolRecord(name)
            content = seal.opened(tables.pools, row)
            memory = texts.brought_back(connection, name, content["policy_state"])
            return PoolRecord(**{**content, "policy_state": memory})

    @failpoint.around("journal.save_pool")
    def save_pool(self, pool: PoolRecord, decided: DecisionRecord | None = None) -> None:
        """Save a pool's record, and with it the decision that made it so."""
        with self._transaction() as connection:
            values = {
                "desired": pool.desired,
                "why": pool.why,
                "paused": pool.paused,
                "policy_state": texts.put_away(connection, pool.name, pool.policy_state),
                "learned": pool.learned,
                "last_decision": pool.last_decision,
            }
            updated = connection.execute(
                sa.update(tables.pools).where(tables.pools.c.name == pool.name).values(**values)
            )
            if updated.rowcount == 0:
                connection.execute(sa.insert(tables.pools).values(name=pool.name, **values))
            seal.put(connection, tables.pools, tables.pools.c.name == pool.name)
            if decided is not None:
                history.keep_decision(connection, decided)

    def decisions(self, pool: str, at: float, limit: int = 2) -> list[DecisionRecord]:
        """The decision that was in force at `at` (Unix seconds) and those before it, newest first."""
        with self._transaction(reads=True) as connection:
            return history.read_decisions(connection, pool, at, limit)

    # traffic

    @failpoint.around("journal.keep_traffic")
    def keep_traffic(self, pool: str, minutes: Iterable[Minute], mark: Mark) -> None:
        """Add what came in during minutes that are over, and where the balancer's count stood then."""
        with self._transaction() as connection:
            history.keep_traffic(connection, pool, minutes, mark)

    def traffic(self, pool: str, since: float = 0.0) -> list[Minute]:
        """The minutes since then whose requests are known, oldest first."""
        with self._transaction(reads=True) as connection:
            return history.read_traffic(connection, pool, since)

    def traffic_mark(self, pool: str) -> Mark | None:
        """Where the balancer's count stood when the newest of these minutes ended; None: none is known."""
        with self._transaction(reads=True) as connection:
            return history.read_mark(connection, pool)

    # events

    @failpoint.around("journal.record")
    def record(
        self,
        now: float,
        kind: str,
        reason: str,
        pool: str | None = None,
        host: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        with self._transaction() as connection:
            self._record(connection, now, kind, pool, host, reason, data or {})

    def _record(
        self,
        connection: Connection,
        now: float,
        kind: str,
        pool: str | None,
        host: str | None,
        reason: str,
        data: dict[str, Any],
    ) -> None:
        result = connection.execute(
            sa.insert(tables.events).values(at=now, kind=kind, pool=pool, host=host, reason=reason, data=data)
        )
        key = result.inserted_primary_key
        if key is not None and key[0] % 1000 == 0:
            connection.execute(sa.delete(tables.events).where(tables.events.c.id <= key[0] - EVENTS_KEPT))

    def events(self, after: int = 0, limit: int = 1000) -> list[Event]:
        """The newest `limit` events with an id above `after`, oldest first."""
        with self._transaction(reads=True) as connection:
            query = (
                sa.select(tables.events)
                .where(tables.events.c.id > after)
                .order_by(tables.events.c.id.desc())
                .limit(limit)
            )
            return [Event(**row) for row in connection.execute(query).mappings()][::-1]

    # API keys

    def api_keys(self) -> list[KeyRecord]:
        """The keys that are in force, by name."""
        with self._transaction(reads=True) as connection:
            rows = connection.execute(sa.select(tables.api_keys).order_by(tables.api_keys.c.name)).mappings()
            found = [seal.opened(tables.api_keys, row) for row in rows]
            return [KeyRecord(**{**row, "pools": tuple(row["pools"])}) for row in found]

    @failpoint.around("journal.add_key")
    def add_key(self, key: KeyRecord) -> None:
        """Put a key in force, with an event that names it. Raises KeyExists."""
        try:
            with self._transaction() as connection:
                connection.execute(
                    sa.insert(tables.api_keys).values(**{**asdict(key), "pools": list(key.pools)})
                )
                seal.put(connection, tables.api_keys, tables.api_keys.c.name == key.name)
                self._record(
                    connection, key.created_at, "key", None, None, f"API key {key.name} was created", {}
                )
        except IntegrityError as error:
            raise KeyExists(key.name) from error

    @failpoint.around("journal.revoke_key")
    def revoke_key(self, name: str, now: float) -> bool:
        """Take a key out of force; False where there is none of this name."""
        with self._transaction() as connection:
            gone = connection.execute(sa.delete(tables.api_keys).where(tables.api_keys.c.name == name))
            if gone.rowcount:
                self._record(connection, now, "key", None, None, f"API key {name} was revoked", {})
            return bool(gone.rowcount)

    # operator requests

    @failpoint.around("journal.ask")
    def ask(self, kind: str, **args: Any) -> int:
        """Hand the controller a request; its answer comes under the id returned."""
        with self._transaction() as connection:
            result = connection.execute(
                sa.insert(tables.requests).values(at=time.time(), kind=kind, args=args)
            )
            key = result.inserted_primary_key
            assert key is not None
            return int(key[0])

    def asked(self) -> list[Request]:
        """Requests that nobody answered yet, oldest first."""
        with self._transaction(reads=True) as connection:
            query = sa.select(tables.requests).where(tables.requests.c.answered_at.is_(None))
            return [
                Request(r["id"], r["kind"], r["args"], r["at"])
                for r in connection.execute(query.order_by(tables.requests.c.id)).mappings()
            ]

    @failpoint.around("journal.reply")
    def reply(self, request: Request, now: float, ok: bool, message: str) -> None:
        with self._transaction() as connection:
            connection.execute(
                sa.update(tables.requests)
                .where(tables.requests.c.id == request.id)
                .values(answered_at=now, ok=ok, message=message)
            )

    @failpoint.around("journal.withdraw")
    def withdraw(self, request_id: int) -> None:
        """Take back a request that was not answered, so that a later controller does not act on it."""
        with self._transaction() as connection:
            connection.execute(
                sa.update(tables.requests)
                .where(tables.requests.c.id == request_id, tables.requests.c.answered_at.is_(None))
                .values(answered_at=time.time(), ok=False, message="withdrawn")
            )

    def answer(self, request_id: int) -> Answer | None:
        """How a request went; None for an unknown id."""
        with self._transaction(reads=True) as connection:
            query = sa.select(tables.requests).where(tables.requests.c.id == request_id)
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        return Answer(row["answered_at"] is not None, bool(row["ok"]), row["message"] or "")

    # facts

    def goal(self) -> str:
        """Whether the fleet is meant to run: "up" or "down"; "" when nobody said yet."""
        return str(self._fact("goal") or "")

    @failpoint.around("journal.set_goal")
    def set_goal(self, goal: str) -> None:
        self._set_fact("goal", goal)

    def scope(self) -> dict[str, Any]:
        """Which hosts the operator asked for; empty: nothing was ever left out."""
        return dict(self._fact("scope") or {})

    def operation(self) -> dict[str, Any] | None:
        """The last `up` or `down`, with its bounds and how far it is; None: there was none."""
        found = self._fact("operation")
        return None if found is None else dict(found)

    @failpoint.around("journal.order")
    def order(self, goal: str, scope: dict[str, Any], operation: dict[str, Any]) -> None:
        """What an operator asks of the whole fleet and within which bounds: all of it or nothing."""
        with self._transaction() as connection:
            for name, value in (("goal", goal), ("scope", scope), ("operation", operation)):
                self._put_fact(connection, name, value)

    @failpoint.around("journal.note_operation")
    def note_operation(self, operation: dict[str, Any], scope: dict[str, Any] | None = None) -> None:
        """How far the operation is, and what it leaves out for good where it ended early."""
        with self._transaction() as connection:
            self._put_fact(connection, "operation", operation)
            if scope is not None:
                self._put_fact(connection, "scope", scope)

    # the operator lock

    def lock_holder(self) -> dict[str, Any] | None:
        """Who holds the operator lock; None: nobody."""
        found = self._fact("lock")
        return None if not found else dict(found)

    @failpoint.around("journal.take_lock")
    def take_lock(
        self, holder: dict[str, Any], free: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any] | None:
        """Take the operator lock where nobody has it, or `free` says so of who does; else who has it."""
        with self._transaction() as connection:
            query = sa.select(tables.facts.c.value).where(tables.facts.c.name == "lock")
            current = connection.scalar(query)
            if current and not free(dict(current)):
                return dict(current)
            self._put_fact(connection, "lock", holder)
            return None

    @failpoint.around("journal.beat_lock")
    def beat_lock(self, key: str, now: float) -> bool:
        """Say that its holder lives; False where the lock is no longer theirs."""
        with self._transaction() as connection:
            query = sa.select(tables.facts.c.value).where(tables.facts.c.name == "lock")
            current = connection.scalar(query)
            if not current or current.get("id") != key:
                return False
            self._put_fact(connection, "lock", {**current, "beat": now})
            return True

    @failpoint.around("journal.leave_lock")
    def leave_lock(self, key: str) -> None:
        """Give the lock back, if it still is theirs."""
        with self._transaction() as connection:
            query = sa.select(tables.facts.c.value).where(tables.facts.c.name == "lock")
            current = connection.scalar(query)
            if current and current.get("id") == key:
                self._put_fact(connection, "lock", {})

    def removal_allowed(self) -> list[str]:
        """The hosts to which an operator lets fleet.yaml shrink in one step, sorted; empty: nothing was said."""
        return list(self._fact("removal_allowed") or [])

    @failpoint.around("journal.allow_removal")
    def allow_removal(self, remaining: Iterable[str]) -> None:
        self._set_fact("removal_allowed", sorted(remaining))

    def status(self) -> dict[str, Any] | None:
        """The picture that the controller drew at its last tick; None before the first."""
        status = self._fact("status")
        return dict(status) if status is not None else None

    @failpoint.around("journal.write_status")
    def write_status(self, status: dict[str, Any]) -> None:
        self._set_fact("status", status)

    def _fact(self, name: str) -> Any:
        with self._transaction(reads=True) as connection:
            return connection.scalar(sa.select(tables.facts.c.value).where(tables.facts.c.name == name))

    def _set_fact(self, name: str, value: Any) -> None:
        with self._transaction() as connection:
            self._put_fact(connection, name, value)

    def _put_fact(self, connection: Connection, name: str, value: Any) -> None:
        updated = connection.execute(
            sa.update(tables.facts).where(tables.facts.c.name == name).values(value=value)
        )
        if updated.rowcount == 0:
            connection.execute(sa.insert(tables.facts).values(name=name, value=value))


def _identity(path: str | None) -> tuple[int, int] | None:
    """Which file lies at `path` now; None: none."""
    try:
        info = Path(path or "").stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _host(row: sa.RowMapping) -> HostRecord:
    content = seal.opened(tables.hosts, row)
    return HostRecord(**{**content, "state": HostState(content["state"])})


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
