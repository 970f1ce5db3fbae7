"""What a device is given while it is busy: full, short batches of a model that is alone there, each in its own lane."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import numpy as np
import pytest

from fleet_agent.crew.link import WorkerLink
from fleet_agent.crossing.area import LANES, Area, open_area
from fleet_agent.engine.engine import Engine
from fleet_agent.served.served import ServedModel
from fleet_agent.served.traits import Traits
from fleet_wire.agent import AgentConfig, ModelConfig

SIZE = 4
SHORT, LONG = 0.0005, 0.05  # seconds of a full batch


class Written(WorkerLink):
    """A worker that never answers by itself."""

    def __init__(self, area: Area) -> None:
        super().__init__(lambda message: None)
        self.area = area
        self.sent: list[Any] = []

    def send(self, message: object) -> None:
        self.sent.append(message)


@pytest.fixture
def areas():
    fd = open_area()
    yield Area(fd, front=True), Area(fd, front=False)
    os.close(fd)


@pytest.fixture
def engine(areas):
    models = [ModelConfig(name=name, path=".", entrypoint="m:M", max_batch_size=SIZE) for name in "ab"]
    engine = Engine(AgentConfig(listen="127.0.0.1:0", device="cpu", models=models))
    slot = engine.slots[0]
    slot.link, slot.ready = Written(areas[0]), True
    slot.loaded.update(engine.models.values())
    for model in engine.models.values():
        model.traits = Traits([], [], False, True, None)
        model.curve.seed([(SIZE, SHORT)])
    return engine


def ask(engine: Engine, model: ServedModel, number: int, answers: list[Any]) -> None:
    rows = {"x": np.full((1, 3), number, np.float32)}
    engine.submit(model, rows, lambda answer: answers.append((number, answer)))


async def given(engine: Engine, asked: dict[str, int]) -> list[Any]:
    for name, count in asked.items():
        for number in range(count):
            ask(engine, engine.models[name], number, [])
    engine._pump.now()
    return engine.slots[0].link.sent


async def test_full_batches_follow_and_what_is_left_waits(engine):
    sent = await given(engine, {"a": 3 * SIZE + 1})
    assert [(message[0], message[3]["x"][2], message[4], message[6]) for message in sent] == [
        ("run", (SIZE, 3), None, n) for n in range(3)
    ]


async def test_no_more_follow_than_there_are_lanes(engine):
    assert len(await given(engine, {"a": 9 * SIZE})) == LANES


async def test_a_long_batch_is_alone_and_has_all_the_memory(engine):
    engine.models["a"].curve.seed([(SIZE, LONG)])
    (message,) = await given(engine, {"a": 3 * SIZE})
    assert message[6] is None


async def test_nothing_follows_where_another_model_waits(engine):
    assert len(await given(engine, {"a": 3 * SIZE, "b": 1})) == 1


async def test_each_answer_is_its_requests_own(engine, areas):
    answers: list[Any] = []
    for number in range(3 * SIZE):
        ask(engine, engine.models["a"], number, answers)
    engine._pump.now()
    slot = engine.slots[0]
    for _, batch, _, placed, sizes, _, lane in list(slot.link.sent):
        areas[1].enter(lane)
        put = areas[1].put([areas[1].get(placed["x"]) * 2])
        assert put is not None and sizes is None
        engine._ran(slot, ("ran", batch, None, {"": put[0]}, None, SHORT))
    assert [number for number, _ in answers] == list(range(3 * SIZE))
    assert all((answer.rows == 2 * number).all() for number, answer in answers)
    assert not slot.running and slot.busy_since is None


async def test_a_worker_that_ends_answers_for_all_that_it_had(engine):
    answers: list[Any] = []
    for number in range(2 * SIZE):
        ask(engine, engine.models["a"], number, answers)
    engine._pump.now()
    engine._lost(engine.slots[0], "was killed")
    assert [answer.code for _, answer in answers] == ["unavailable"] * 2 * SIZE


async def test_on_one_core_a_full_batch_goes_at_once_where_it_takes_long(engine):
    engine._pump._one_core = True
    engine.models["a"].curve.seed([(SIZE, LONG)])
    for number in range(SIZE):
        ask(engine, engine.models["a"], number, [])
    await asyncio.sleep(0)  # one pass of the event loop
    assert len(engine.slots[0].link.sent) == 1


async def test_on_one_core_short_ones_wait_until_what_comes_is_read(engine):
    engine._pump._one_core = True
    sent = engine.slots[0].link.sent
    for number in range(SIZE):
        ask(engine, engine.models["a"], number, [])
    await asyncio.sleep(0)
    assert not sent
    for number in range(SIZE):
        ask(engine, engine.models["a"], number, [])
    await asyncio.sleep(0)
    assert not sent
    await asyncio.sleep(0)  # a pass that brings nothing
    assert len(sent) == 2
