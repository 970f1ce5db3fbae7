"""A journal in memory behind the real one's methods: 500 runs have no time for SQL. A contract test runs both."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from fleet_controller.journal import Busy, JournalError, KeyExists
from fleet_controller.lifecycle import HostState, check_move
from fleet_controller.records import (
    UNKNOWN_ACTION,
    Action,
    Answer,
    Event,
    HostRecord,
    KeyRecord,
    PoolRecord,
    Request,
)


@dataclass
class Store:
    """What outlives a controller."""

    hosts: dict[str, HostRecord] = field(default_factory=dict)
    pools: dict[str, PoolRecord] = field(default_factory=dict)
    actions: dict[str, Action] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    requests: dict[int, tuple[Request, Answer]] = field(default_factory=dict)
    keys: dict[str, KeyRecord] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    marks: dict[str, Any] = field(default_factory=dict)
    full: bool = False
    names: Any = field(default_factory=lambda: count(1))


def _nothing(_name: str) -> None:
    """Nobody interferes."""


class MemoryJournal:
    """`touch` is called with "journal.NAME.before" and "journal.NAME.after" around every commit, and with "read"."""

    def __init__(self, store: Store, touch: Callable[[str], None] = _nothing) -> None:
        self._store = store
        self._touch = touch

    def close(self) -> None:
        pass

    def _read(self) -> Store:
        self._touch("read")
        return self._store

    # hosts

    def hosts(self) -> dict[str, HostRecord]:
        return dict(sorted(self._read().hosts.items()))

    def host(self, name: str) -> HostRecord:
        return self._read().hosts[name]

    def enlist(self, names: Iterable[str], now: float, suspects: Container[str] = ()) -> None:
        with self._commit("enlist") as store:
            for name in sorted(names):
                record = HostRecord(name, since=now)
                if name in suspects:
                    reason = "the state store does not know it; it is looked at first"
                    record = replace(
                        record, state=HostState.UNREACHABLE, reason=reason, action_id=UNKNOWN_ACTION
                    )
                store.hosts.setdefault(name, record)

    def dismiss(self, names: Iterable[str]) -> None:
        with self._commit("dismiss") as store:
            for name in names:
                if name in store.hosts and store.hosts[name].state is HostState.OFF:
                    del store.hosts[name]

    def move(self, name: str, state: HostState, reason: str, now: float, **changes: Any) -> HostRecord:
        with self._commit("move") as store:
            return _move(store, name, state, reason, now, changes)

    def amend(self, name: str, **changes: Any) -> None:
        with self._commit("amend") as store:
            store.hosts[name] = replace(store.hosts[name], **changes)

    # actions

    def begin(
        self, host: str, kind: Any, pool: str | None, reason: str, now: float, state: HostState
    ) -> Action:
        with self._commit("begin") as store:
            if any(action.host == host for action in store.actions.values()):
                raise Busy(host)
            action = Action(f"action-{next(store.names)}", host, kind, reason, now)
            _move(store, host, state, reason, now, {"pool": pool})
            store.actions[action.id] = action
        return action

    def conclude(
        self,
        action: Action,
        state: HostState,
        reason: str,
        now: float,
        error: str | None = None,
        **changes: Any,
    ) -> None:
        with self._commit("conclude") as store:
            _move(store, action.host, state, reason, now, {"error": error, **changes})
            store.actions.pop(action.id, None)

    def open_actions(self) -> list[Action]:
        return sorted(self._read().actions.values(), key=lambda a: a.created_at)

    # pools

    def pool(self, name: str) -> PoolRecord:
        return self._read().pools.get(name, PoolRecord(name))

    def save_pool(self, pool: PoolRecord, decided: Any = None) -> None:
        with self._commit("save_pool") as store:
            store.pools[pool.name] = pool

    def keep_traffic(self, pool: str, minutes: Any, mark: Any) -> None:
        with self._commit("keep_traffic") as store:
            store.marks[pool] = mark

    def traffic_mark(self, pool: str) -> Any:
        return self._read().marks.get(pool)

    # events

    def record(
        self,
        now: float,
        kind: str,
        reason: str,
        pool: str | None = None,
        host: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        with self._commit("record") as store:
            _record(store, now, kind, pool, host, reason, data or {})

    def events(self, after: int = 0, limit: int = 1000) -> list[Event]:
        return [e for e in self._read().events if e.id > after][-limit:]

    # API keys

    def api_keys(self) -> list[KeyRecord]:
        return [key for _, key in sorted(self._read().keys.items())]

    def add_key(self, key: KeyRecord) -> None:
        with self._commit("add_key") as store:
            if key.name in store.keys:
                raise KeyExists(key.name)
            store.keys[key.name] = key
            _record(store, key.created_at, "key", None, None, f"API key {key.name} was created", {})

    def revoke_key(self, name: str, now: float) -> bool:
        with self._commit("revoke_key") as store:
            gone = store.keys.pop(name, None) is not None
            if gone:
                _record(store, now, "key", None, None, f"API key {name} was revoked", {})
            return gone

    # operator requests

    def ask(self, kind: str, **args: Any) -> int:
        with self._commit("ask") as store:
            key = next(store.names)
            store.requests[key] = (Request(key, kind, args, 0.0), Answer(False, False, ""))
            return key

    def asked(self) -> list[Request]:
        return [request for request, answer in self._read().requests.values() if not answer.done]

    def reply(self, request: Request, now: float, ok: bool, message: str) -> None:
        with self._commit("reply") as store:
            known = store.requests[request.id]
            if not known[1].done:
                store.requests[request.id] = (known[0], Answer(True, ok, message))

    def withdraw(self, request_id: int) -> None:
        with self._commit("withdraw") as store:
            known = store.requests.get(request_id)
            if known is not None and not known[1].done:
                store.requests[request_id] = (known[0], Answer(True, False, "withdrawn"))

    def answer(self, request_id: int) -> Answer | None:
        known = self._read().requests.get(request_id)
        return None if known is None else known[1]

    # facts

    def goal(self) -> str:
        return str(self._read().facts.get("goal") or "")

    def set_goal(self, goal: str) -> None:
        with self._commit("set_goal") as store:
            store.facts["goal"] = goal

    def scope(self) -> dict[str, Any]:
        return copy.deepcopy(self._read().facts.get("scope") or {})

    def operation(self) -> dict[str, Any] | None:
        return copy.deepcopy(self._read().facts.get("operation"))

    def order(self, goal: str, scope: dict[str, Any], operation: dict[str, Any]) -> None:
        with self._commit("order") as store:
            store.facts |= {"goal": goal, "scope": scope, "operation": operation}

    def note_operation(self, operation: dict[str, Any], scope: dict[str, Any] | None = None) -> None:
        with self._commit("note_operation") as store:
            store.facts["operation"] = operation
            if scope is not None:
                store.facts["scope"] = scope

    def lock_holder(self) -> dict[str, Any] | None:
        return copy.deepcopy(self._read().facts.get("lock")) or None

    def take_lock(
        self, holder: dict[str, Any], free: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any] | None:
        with self._commit("take_lock") as store:
            current = store.facts.get("lock")
            if current and not free(current):
                return dict(current)
            store.facts["lock"] = holder
            return None

    def beat_lock(self, key: str, now: float) -> bool:
        with self._commit("beat_lock") as store:
            current = store.facts.get("lock") or {}
            if current.get("id") != key:
                return False
            store.facts["lock"] = {**current, "beat": now}
            return True

    def leave_lock(self, key: str) -> None:
        with self._commit("leave_lock") as store:
            if (store.facts.get("lock") or {}).get("id") == key:
                store.facts["lock"] = {}

    def removal_allowed(self) -> list[str]:
        return list(self._read().facts.get("removal_allowed") or [])

    def allow_removal(self, remaining: Iterable[str]) -> None:
        with self._commit("allow_removal") as store:
            store.facts["removal_allowed"] = sorted(remaining)

    def status(self) -> dict[str, Any] | None:
        return copy.deepcopy(self._read().facts.get("status"))

    def write_status(self, status: dict[str, Any]) -> None:
        with self._commit("write_status") as store:
            store.facts["status"] = status

    def _commit(self, name: str) -> _Commit:
        return _Commit(self._store, self._touch, name)


class _Commit:
    """A transaction. All that can be refused is refused before anything is changed, so nothing is rolled back."""

    def __init__(self, store: Store, touch: Callable[[str], None], name: str) -> None:
        self._store = store
        self._touch = touch
        self._name = name

    def __enter__(self) -> Store:
        self._touch(f"journal.{self._name}.before")
        if self._store.full:
            raise JournalError("the state store can't be used: database or disk is full")
        return self._store

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._touch(f"journal.{self._name}.after")


def _move(
    store: Store, name: str, state: HostState, reason: str, now: float, changes: dict[str, Any]
) -> HostRecord:
    before = store.hosts[name]
    check_move(name, before.state, state)
    moved = state is not before.state
    after = replace(before, **{**({"unproven": False} if "error" in changes else {}), **changes})
    if moved:
        after = replace(after, state=state, since=now, reason=reason)
    store.hosts[name] = after
    if moved or (changes.get("error") and changes["error"] != before.error):
        data = {"from": before.state.value}
        if changes.get("error"):
            data["error"] = changes["error"]
        _record(store, now, state.value, changes.get("pool", before.pool), name, reason, data)
    return after


def _record(
    store: Store,
    now: float,
    kind: str,
    pool: str | None,
    host: str | None,
    reason: str,
    data: dict[str, Any],
) -> None:
    store.events.append(Event(len(store.events) + 1, now, kind, pool, host, reason, data))
