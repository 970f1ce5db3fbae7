"""Journal: what may be read and written of the state store, each commit a method.

Every change of a host's state is one transaction together with its event, and an action's intent is
recorded before its effect. The rows are read and written by the files beside this one, the transactions are store.py's.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Container, Iterable
from typing import Any

from sqlalchemy.exc import IntegrityError

from fleet_controller import failpoint
from fleet_controller.journal import events, facts, history, hostrows, inbox, keyring, poolrows
from fleet_controller.journal.store import Store
from fleet_controller.lifecycle import HostState
from fleet_controller.records import (
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


class Busy(Exception):
    """The host has an open action already."""


class KeyExists(Exception):
    """There is an API key of this name already."""


class Journal:
    """The state store as nouns. Safe to use from several threads and processes.

    Each method is all of what it says, or nothing. Raises JournalError where the store fails, JournalGone where its
    file is gone.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._transaction = store.transaction

    @classmethod
    def open(cls, url: str) -> Journal:
        """Open (and create or migrate) the store at an SQLAlchemy `url`. Raises JournalError."""
        return cls(Store.open(url))

    def close(self) -> None:
        self._store.close()

    # hosts

    def hosts(self) -> dict[str, HostRecord]:
        """Every host by its name."""
        with self._transaction(reads=True) as connection:
            return hostrows.everyone(connection)

    def host(self, name: str) -> HostRecord:
        """One host. Raises KeyError for an unknown one."""
        with self._transaction(reads=True) as connection:
            return hostrows.one(connection, name)

    @failpoint.around("journal.enlist")
    def enlist(self, names: Iterable[str], now: float, suspects: Container[str] = ()) -> None:
        """Make sure that each named host has a record; new ones are off.

        Of `suspects` nothing is known, for the journal was lost: they count as unreachable until they were looked at.
        """
        with self._transaction() as connection:
            hostrows.enlist(connection, names, now, suspects)

    @failpoint.around("journal.dismiss")
    def dismiss(self, names: Iterable[str]) -> None:
        """Forget hosts that left fleet.yaml; only those that are off are ever dismissed."""
        with self._transaction() as connection:
            hostrows.dismiss(connection, names)

    @failpoint.around("journal.move")
    def move(self, name: str, state: HostState, reason: str, now: float, **changes: Any) -> HostRecord:
        """Take a host to `state` and record the event, in one transaction.

        `changes` sets further fields of the record; another `error`, or none, is not of a host that is `unproven`
        unless it says so. Raises IllegalMove where the state can't follow, KeyError for an unknown host.
        """
        with self._transaction() as connection:
            return hostrows.move(connection, name, state, reason, now, changes)

    @failpoint.around("journal.amend")
    def amend(self, name: str, **changes: Any) -> None:
        """Set fields of a host's record without a move and without an event."""
        with self._transaction() as connection:
            hostrows.amend(connection, name, changes)

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
                hostrows.begin(connection, action)
                hostrows.move(connection, host, state, reason, now, {"pool": pool})
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
            hostrows.close(connection, action, now, error)
            hostrows.move(connection, action.host, state, reason, now, {"error": error, **changes})

    def open_actions(self) -> list[Action]:
        """Actions whose end is not recorded: those of this run, or left by one that was killed."""
        with self._transaction(reads=True) as connection:
            return hostrows.open_actions(connection)

    # pools

    def pool(self, name: str) -> PoolRecord:
        """A pool's record; a fresh one where it has none."""
        with self._transaction(reads=True) as connection:
            return poolrows.one(connection, name)

    @failpoint.around("journal.save_pool")
    def save_pool(self, pool: PoolRecord, decided: DecisionRecord | None = None) -> None:
        """Save a pool's record, and with it the decision that made it so."""
        with self._transaction() as connection:
            poolrows.save(connection, pool)
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
            events.record(connection, now, kind, pool, host, reason, data or {})

    def events(self, after: int = 0, limit: int = 1000) -> list[Event]:
        """The newest `limit` events with an id above `after`, oldest first."""
        with self._transaction(reads=True) as connection:
            return events.newest(connection, after, limit)

    # API keys

    def api_keys(self) -> list[KeyRecord]:
        """The keys that are in force, by name."""
        with self._transaction(reads=True) as connection:
            return keyring.everyone(connection)

    @failpoint.around("journal.add_key")
    def add_key(self, key: KeyRecord) -> None:
        """Put a key in force, with an event that names it. Raises KeyExists."""
        try:
            with self._transaction() as connection:
                keyring.add(connection, key)
        except IntegrityError as error:
            raise KeyExists(key.name) from error

    @failpoint.around("journal.revoke_key")
    def revoke_key(self, name: str, now: float) -> bool:
        """Take a key out of force; False where there is none of this name."""
        with self._transaction() as connection:
            return keyring.revoke(connection, name, now)

    # operator requests

    @failpoint.around("journal.ask")
    def ask(self, kind: str, **args: Any) -> int:
        """Hand the controller a request; its answer comes under the id returned."""
        with self._transaction() as connection:
            return inbox.put(connection, time.time(), kind, args)

    def asked(self) -> list[Request]:
        """Requests that nobody answered yet, oldest first."""
        with self._transaction(reads=True) as connection:
            return inbox.unanswered(connection)

    @failpoint.around("journal.reply")
    def reply(self, request: Request, now: float, ok: bool, message: str) -> None:
        with self._transaction() as connection:
            inbox.reply(connection, request.id, now, ok, message)

    @failpoint.around("journal.withdraw")
    def withdraw(self, request_id: int) -> None:
        """Take back a request that was not answered, so that a later controller does not act on it."""
        with self._transaction() as connection:
            inbox.withdraw(connection, request_id, time.time())

    def answer(self, request_id: int) -> Answer | None:
        """How a request went; None for an unknown id."""
        with self._transaction(reads=True) as connection:
            return inbox.answer(connection, request_id)

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
                facts.put(connection, name, value)

    @failpoint.around("journal.note_operation")
    def note_operation(self, operation: dict[str, Any], scope: dict[str, Any] | None = None) -> None:
        """How far the operation is, and what it leaves out for good where it ended early."""
        with self._transaction() as connection:
            facts.put(connection, "operation", operation)
            if scope is not None:
                facts.put(connection, "scope", scope)

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
            return facts.get(connection, name)

    def _set_fact(self, name: str, value: Any) -> None:
        with self._transaction() as connection:
            facts.put(connection, name, value)

    # the operator lock

    def lock_holder(self) -> dict[str, Any] | None:
        """Who holds the operator lock; None: nobody."""
        found = self._fact(facts.LOCK)
        return None if not found else dict(found)

    @failpoint.around("journal.take_lock")
    def take_lock(
        self, holder: dict[str, Any], free: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any] | None:
        """Take the operator lock where nobody has it, or `free` says so of who does; else who has it."""
        with self._transaction() as connection:
            return facts.take_lock(connection, holder, free)

    @failpoint.around("journal.beat_lock")
    def beat_lock(self, key: str, now: float) -> bool:
        """Say that its holder lives; False where the lock is no longer theirs."""
        with self._transaction() as connection:
            return facts.beat_lock(connection, key, now)

    @failpoint.around("journal.leave_lock")
    def leave_lock(self, key: str) -> None:
        """Give the lock back, if it still is theirs."""
        with self._transaction() as connection:
            facts.leave_lock(connection, key)
