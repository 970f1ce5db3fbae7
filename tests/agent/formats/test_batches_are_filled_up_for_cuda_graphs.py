"""What a graph's batch size is, and that filled-in rows never come back. The replay itself needs a GPU."""

from __future__ import annotations

import pytest
import torch

from fleet_agent.model.graphs import filled, first_rows, tensors_of


@pytest.mark.parametrize(
    ("count", "largest", "size"),
    [(1, 32, 1), (2, 32, 2), (3, 32, 4), (17, 32, 32), (17, 20, 20), (33, 32, 33)],
)
def test_the_next_power_of_two_at_most_the_largest_batch(count: int, largest: int, size: int) -> None:
    assert filled(count, largest) == size


def test_filled_in_rows_are_cut_off_and_the_rest_copied() -> None:
    buffer = torch.arange(8.0).reshape(4, 2)
    rows = first_rows({"a": buffer, "b": (buffer[:, 0],)}, 3, 4)
    buffer.zero_()
    assert rows["a"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert rows["b"][0].tolist() == [0, 2, 4]


def test_only_tensors_of_one_length_are_a_graphs_batch() -> None:
    two = torch.zeros(2, 3)
    assert tensors_of(two) == [two]
    assert tensors_of({"a": two, "b": torch.zeros(3)}) is None
    assert tensors_of([two]) is None
    assert tensors_of({"a": two, "b": "text"}) is None
