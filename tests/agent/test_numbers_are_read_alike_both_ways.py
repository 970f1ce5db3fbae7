"""The short ways into an array (vectors.py, known heads of tensorcall.py) read what the long ones read, or nothing."""

from __future__ import annotations

import json
import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_agent.protocol import raw, tensorcall
from fleet_agent.served.answer import Answer
from fleet_agent.served.ledger import Ledger
from fleet_agent.served.traits import Traits
from fleet_agent.values.payload import count_of, cut, is_finite, joined, packed, unpacked
from fleet_agent.values.vectors import VectorReader
from fleet_wire.agent import ModelConfig
from fleet_wire.refusal import Refusal

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-(2**53), 2**53)
READER = VectorReader()


@given(
    st.integers(1, 5).flatmap(
        lambda width: st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=1)
    )
)
def test_vectors_are_what_a_json_library_and_numpy_make_of_them(instances):
    rows = READER.rows(orjson.dumps({"instances": instances}), len(instances[0]))
    if rows is None:  # so large that the squares' sum is no float32's square any more: the long way's
        assert math.fsum(float(n) ** 2 for row in instances for n in row) > 1e76
    else:
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, np.array(instances, np.float64).astype(np.float32))


@given(
    st.recursive(
        NUMBERS | st.booleans() | st.none() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=12,
    )
)
def test_whatever_instances_are_only_rows_of_numbers_are_read(instances):
    rows = READER.rows(json.dumps({"instances": instances}).encode(), -1)
    if rows is not None:
        assert [len(row) for row in instances] == [rows.shape[1]] * len(instances)
        assert all(type(number) in (int, float) for row in instances for number in row)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances":[[1,true]]}',
        b'{"instances":[[1,"2"]]}',
        b'{"instances":[[[1],[2]]]}',
        b'{"instances":[[1,2],[3]]}',
        b'{"instances":[[1,2,3]]}',
        b'{"instances":[[1e39,0]]}',
        b'{"instances":[[NaN,0]]}',
        b'{"instances":[]}',
        b'{"instances":[[1,2]]',
        b'{"instances":[[1,2]]} {}',
        b'{"inputs":[[1,2]]}',
        b"[[1,2]]",
        b"\xff",
        b"",
    ],
)
def test_what_is_not_rows_of_two_numbers_is_left_to_the_long_way(body):
    assert READER.rows(body, 2) is None
    assert READER.rows(b'{"instances":[[1,2]]}', 2) is not None


def served():
    tensor = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    model = Ledger().entry(ModelConfig(name="m", path="/", entrypoint="m:M"))
    model.traits = Traits(inputs=tensor, outputs=[], embeddings=False, tensors=True, memory_bytes=None)
    return model


def call(model, rows, **more):
    data = np.array(rows, np.float32).tobytes()
    tensor = {
        "name": "x",
        "datatype": "FP32",
        "shape": [len(rows), 2],
        "parameters": {"binary_data_size": len(data)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}, **more}).encode()
    return tensorcall.read(model, b"%d" % len(head), head + data)


def test_a_head_that_came_before_gives_what_it_gave_then():
    model = served()
    _, first, _, _ = call(model, [[1, 2]])
    _, payload, again, _ = call(model, [[3, 4]])
    assert len(model.forms) == 1
    assert unpacked(first)["x"].tolist() == [[1, 2]] and unpacked(payload)["x"].tolist() == [[3, 4]]
    replies = [again.reply(Answer(np.array([[n]], np.float32), True, None)) for n in (5, 6)]
    assert [np.frombuffer(reply.body[-4:], np.float32)[0] for reply in replies] == [5, 6]
    assert replies[0].headers == replies[1].headers and replies[0].body[:-4] == replies[1].body[:-4]
    # Another shape of the answer has another head.
    wide = again.reply(Answer(np.array([[7, 8]], np.float32), True, None))
    assert b'"shape":[1,2]' in wide.body and wide.body[-8:] == np.array([7, 8], np.float32).tobytes()


def test_a_head_with_an_id_of_its_own_is_not_kept():
    model = served()
    _, _, saying, _ = call(model, [[1, 2]], id="a")
    reply = saying.reply(Answer(np.array([[5]], np.float32), True, None))
    assert b'"id":"a"' in reply.body and not model.forms


def test_a_known_head_with_a_body_of_another_length_is_refused():
    model = served()
    call(model, [[1, 2]])
    (head,) = model.forms
    with pytest.raises(Refusal, match="belong to no input"):
        tensorcall.read(model, b"%d" % len(head), head + bytes(12))
    with pytest.raises(Refusal, match="not in the body"):
        tensorcall.read(model, b"%d" % len(head), head + bytes(4))


DTYPED = {"FP32": "<f4", "INT8": "i1", "UINT16": "<u2", "FP64": "<f8", "BOOL": "?"}


@given(
    st.sampled_from(sorted(DTYPED)), st.integers(1, 4), st.lists(st.integers(1, 4), min_size=1, max_size=4)
)
def test_bare_numbers_and_a_cut_of_them_are_what_numpy_reads(datatype, width, counts):
    """Packed, which is kept as bytes, and arrays, which are made of what has to be looked at, are the same numbers."""
    tensor = [{"name": "x", "datatype": datatype, "shape": [-1, width]}]
    model = served()
    model.traits = Traits(inputs=tensor, outputs=[], embeddings=False, tensors=True, memory_bytes=None)
    before, traits = model.traits, Traits(tensor, [], False, True, None)
    assert (
        before.layout == traits.layout
    )  # so that what was read before a worker was replaced goes with the rest
    wanted = [
        (np.arange(count * width) % 2).astype(DTYPED[datatype]).reshape(count, width) for count in counts
    ]
    parts = [raw.read(raw.BARE, rows.tobytes(), model) for rows in wanted]
    assert [count_of(part) for part in parts] == counts
    together = packed(parts)
    assert (together is None) == (datatype == "BOOL")
    if together is not None:
        assert b"".join(together[1]) == np.concatenate(wanted).tobytes()
        assert packed([*parts, {"x": wanted[0]}]) is None
    (array,) = unpacked(joined(parts)).values()
    np.testing.assert_array_equal(array, np.concatenate(wanted))
    for part, rows in zip(parts, wanted, strict=True):
        np.testing.assert_array_equal(unpacked(cut(part, 1, len(rows)))["x"], rows[1:])


@given(st.lists(st.floats(width=32), min_size=1))
def test_numbers_are_finite_or_not_as_numpy_says(numbers):
    assert is_finite(np.array(numbers, np.float32)) == all(map(math.isfinite, numbers))
