"""Contract: whatever the simulated worlds' journal says, the real one says too, step by step."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleet_world.journal import MemoryJournal, Store
from fleet_world.points import points

from fleet_controller.journal import Busy, Journal, KeyExists, KeyRecord, PoolRecord
from fleet_controller.lifecycle import HostState, IllegalMove

HOSTS = ("a", "b", "c")
STATES = tuple(HostState)
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"error": "e"},
    {"error": "e", "unproven": True},
    {"failures": 3},
    {"release": "r", "agent_port": 7},
)


def steps(dice: random.Random) -> list[Callable[[Any], Any]]:
    """A random life of a journal; actions are told by their host, for their names differ."""
    found: list[Callable[[Any], Any]] = []
    for now in range(1, 160):
        host, state, at = dice.choice(HOSTS), dice.choice(STATES), float(now)
        kind = dice.choice(["start", "stop"])
        changes = dice.choice(CHANGES)
        key = KeyRecord(dice.choice("kl"), f"{now:064}", at, pools=("p",))
        desired = dice.randint(0, 9)
        found.append(
            dice.choice(
                [
                    lambda j, h=host, s=state, t=at, c=changes: replace(j.move(h, s, "why", t, **c)),
                    lambda j, h=host, s=state, t=at, k=kind: j.begin(h, k, "p", "why", t, s).host,
                    lambda j, s=state, t=at: _conclude(j, s, t),
                    lambda j, h=host, c=changes: j.amend(h, cordoned=True, **c),
                    lambda j, h=host: j.dismiss([h]),
                    lambda j, h=host, t=at: j.enlist([h], t),
                    lambda j, h=host, t=at: j.enlist([h], t, {h}),
                    lambda j, d=desired: j.save_pool(PoolRecord("p", desired=d, learned={"x": 1.5})),
                    lambda j, t=at: j.record(t, "kind", "reason", "p"),
                    lambda j, k=key: j.add_key(k),
                    lambda j, t=at: j.revoke_key("k", t),
                    lambda j: j.set_goal("up"),
                    lambda j, t=at: j.order("up", {"away": ["a"]}, {"since": t}),
                    lambda j, t=at: j.note_operation({"since": t}, {"only": ["a"]} if t % 2 else None),
                    lambda j, h=host, t=at: j.take_lock({"id": h, "beat": t}, lambda lock, t=t: t % 2 > 0),
                    lambda j, h=host, t=at: j.beat_lock(h, t),
                    lambda j, h=host: j.leave_lock(h),
                    lambda j: j.allow_removal(["b", "a"]),
                    lambda j: j.write_status({"x": 1}),
                ]
            )
        )
    return found


def _conclude(journal: Any, state: HostState, now: float) -> Any:
    for action in journal.open_actions()[:1]:
        journal.conclude(action, state, "done", now, error=None, failures=1)


def outcome(journal: Any, step: Callable[[Any], Any]) -> Any:
    try:
        return step(journal)
    except (Busy, IllegalMove, KeyExists, KeyError) as error:
        return type(error)


def picture(journal: Any) -> dict[str, Any]:
    return {
        "hosts": journal.hosts(),
        "pool": journal.pool("p"),
        "open": [(a.host, a.kind, a.reason) for a in journal.open_actions()],
        "events": journal.events(limit=5),
        "keys": journal.api_keys(),
        "goal": journal.goal(),
        "scope": journal.scope(),
        "operation": journal.operation(),
        "lock": journal.lock_holder(),
        "allowed": journal.removal_allowed(),
        "status": journal.status(),
    }


def test_step_by_step_both_say_the_same(tmp_path: Path) -> None:
    dice = random.Random(8)
    real, memory = Journal.open(f"sqlite:///{tmp_path / 'state.db'}"), MemoryJournal(Store())
    for journal in (real, memory):
        journal.enlist(HOSTS, 0.0)
    for n, step in enumerate(steps(dice)):
        assert outcome(real, step) == outcome(memory, step), n
        assert picture(real) == picture(memory), n
    real.close()


def test_operators_requests_are_kept_alike(tmp_path: Path) -> None:
    real = Journal.open(f"sqlite:///{tmp_path / 'state.db'}")
    for journal in (real, MemoryJournal(Store())):
        one, two = journal.ask("scale", pool="p", servers=2), journal.ask("up")
        assert [(r.kind, r.args) for r in journal.asked()] == [
            ("scale", {"pool": "p", "servers": 2}),
            ("up", {}),
        ]
        journal.reply(journal.asked()[0], 3.0, True, "done")
        journal.withdraw(two)
        assert journal.asked() == []
        answers = [journal.answer(one), journal.answer(two), journal.answer(99)]
        assert [(a.done, a.ok, a.message) if a else None for a in answers] == [
            (True, True, "done"),
            (True, False, "withdrawn"),
            None,
        ]
    real.close()


def test_it_has_every_commit_of_the_real_one() -> None:
    commits = {point.split(".")[1] for point in points() if point.startswith("journal.")} - {"migrate"}
    assert commits <= set(dir(MemoryJournal))
