"""Variable lengths: what can't be one tensor is not in one batch, texts go by length buckets, and nobody starves."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_agent.queue.batcher import Batcher
from fleet_agent.values.lengths import checked_buckets, group_of, padding

# Sums of rows of any length. The second output is how many rows were in the batch.
SUMS = """
import time
import torch

class Model:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}]

    def load(self, device, options):
        pass

    def forward(self, batch):
        time.sleep(0.03)
        return torch.stack([batch.sum(dim=1), torch.full((len(batch),), float(len(batch)))], dim=1)
"""

# The same of texts: their lengths, and that of the longest in the batch.
TEXTS = """
import time

class Model:
    length_buckets = [10, 100]

    def load(self, device, options):
        pass

    def preprocess(self, instances):
        return instances

    def forward(self, batch):
        time.sleep(0.03)
        return [[len(text), max(map(len, batch))] for text in batch]
"""


@pytest.fixture(scope="module")
def agent(start_shared_agent: Callable[..., Any], written_model: Callable[..., dict[str, Any]]) -> Any:
    told = written_model("told", TEXTS.replace("[10, 100]", "[7]"), length_buckets=[10, 100])
    return start_shared_agent(written_model("sums", SUMS), written_model("texts", TEXTS), told).ready()


def together(agent: Any, model: str, instances: list[Any]) -> list[Any]:
    with ThreadPoolExecutor(len(instances)) as pool:
        replies = list(pool.map(lambda one: agent.predict(model, [one]), instances))
    assert [reply.status_code for reply in replies] == [200] * len(instances)
    return [reply.json()["predictions"][0] for reply in replies]


def metric(agent: Any, name: str) -> float:
    lines = agent.http.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_rows_of_three_lengths_are_computed_in_a_few_batches(agent: Any) -> None:
    rows = [[1.0] * (2 + n % 3) for n in range(48)]
    before = metric(agent, 'fleet_agent_batches_total{model="sums"')
    answers = together(agent, "sums", rows)
    assert [answer[0] for answer in answers] == [len(row) for row in rows]
    assert max(answer[1] for answer in answers) > 4
    assert metric(agent, 'fleet_agent_batches_total{model="sums"') - before < 24


@pytest.mark.parametrize("model", ["texts", "told"], ids=["the model's own", "the configuration's"])
def test_texts_share_batches_with_those_of_their_bucket_and_padding_is_counted(
    agent: Any, model: str
) -> None:
    texts = ["x" * length for length in (1, 10, 11, 100, 101, 5000) for _ in range(6)]
    answers = together(agent, model, texts)
    assert [answer[0] for answer in answers] == [len(text) for text in texts]
    assert all(
        longest <= bound
        for n, longest in answers
        for bound in (10, 100, 5000)
        if n <= bound and n * 10 > bound
    )
    used = metric(agent, f'fleet_agent_length_total{{model="{model}",of="instances"')
    assert used == sum(map(len, texts)), agent.http.get("/metrics").text
    assert metric(agent, f'fleet_agent_length_total{{model="{model}",of="padding"') > 0


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5), st.integers(0, 3)), max_size=40),
    st.integers(1, 8),
)
def test_no_batch_has_two_groups_and_all_are_computed(asked: list[tuple[int, int, int]], most: int) -> None:
    queue: Batcher[int, int] = Batcher(most)
    groups = {}
    for number, (group, count, priority) in enumerate(asked):
        queue.add(number, count, 0.0, priority=priority, group=group or None)
        groups[number] = group
    computed = dict.fromkeys(groups, 0)
    batches = 0
    while (batch := queue.take(1.0).batch) is not None:
        assert len({groups[part.request] for part in batch.parts}) == 1
        assert batch.size <= most
        for part in batch.parts:
            assert part.start == computed[part.request]
            computed[part.request] = part.stop
        queue.finish(batch, [0] * len(batch.parts), 1.0)
        batches += 1
    assert computed == {number: count for number, (_, count, _) in enumerate(asked)}
    assert (queue.queued, queue.in_flight, queue.waiting_items) == (0, 0, 0)


def test_a_rare_length_does_not_wait_for_the_others_to_end() -> None:
    queue: Batcher[int, int] = Batcher(2)
    for number in range(8):
        queue.add(number, 1, 0.0, group="rare" if number == 3 else "usual")
    order = []
    while (batch := queue.take(1.0).batch) is not None:
        order.append([part.request for part in batch.parts])
        queue.finish(batch, [0] * len(batch.parts), 1.0)
    assert order == [[0, 1], [2, 4], [3], [5, 6], [7]]


def test_a_group_is_a_shape_or_a_bucket() -> None:
    assert group_of({"x": np.zeros((3, 5, 2))}, None) == (("x", (5, 2)),)
    assert group_of([[[1, 2], [3, 4], [5, 6]]], None) == (3, 2)
    assert group_of([{"b": [1, 2], "a": 1}], None) == (("a", ()), ("b", (2,)))
    assert [group_of(["x" * n], [8, 16]) for n in (0, 8, 9, 16, 17)] == [0, 0, 1, 1, 2]
    assert group_of(["x", "x" * 20], [8, 16]) == 2
    assert group_of({"text": np.array([[b"abc"], [b""]], dtype=object)}, [2, 3]) == 1
    assert padding([2, 5, 3]) == (10, 5)


@pytest.mark.parametrize("wrong", [[], [0], [3, 2], [2, 2], "8", [1.5], [True]])
def test_wrong_buckets_are_named(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"model m\.length_buckets"):
        checked_buckets(wrong, "model m.length_buckets")
