"""The short ways into an array (vectors.py, known heads of tensorcall.py) read what the long ones read, or nothing."""

from __future__ import annotations

import json
import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_agent.protocol import tensorcall
from fleet_agent.served.answer import Answer
from fleet_agent.served.ledger import Ledger
from fleet_agent.served.traits import Traits
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
    first = call(model, [[1, 2]])
    again = call(model, [[3, 4]])
    assert len(model.forms) == 1
    assert first.payload["x"].tolist() == [[1, 2]] and again.payload["x"].tolist() == [[3, 4]]
    replies = [
        asked.reply(Answer(np.array([[n]], np.float32), True, None)) for n, asked in ((5, again), (6, again))
    ]
    assert [np.frombuffer(reply.body[-4:], np.float32)[0] for reply in replies] == [5, 6]
    assert replies[0].headers == replies[1].headers and replies[0].body[:-4] == replies[1].body[:-4]
    # Another shape of the answer has another head.
    wide = again.reply(Answer(np.array([[7, 8]], np.float32), True, None))
    assert b'"shape":[1,2]' in wide.body and wide.body[-8:] == np.array([7, 8], np.float32).tobytes()


def test_a_head_with_an_id_of_its_own_is_not_kept():
    model = served()
    reply = call(model, [[1, 2]], id="a").reply(Answer(np.array([[5]], np.float32), True, None))
    assert b'"id":"a"' in reply.body and not model.forms


def test_a_known_head_with_a_body_of_another_length_is_refused():
    model = served()
    call(model, [[1, 2]])
    (head,) = model.forms
    with pytest.raises(Refusal, match="belong to no input"):
        tensorcall.read(model, b"%d" % len(head), head + bytes(12))
    with pytest.raises(Refusal, match="not in the body"):
        tensorcall.read(model, b"%d" % len(head), head + bytes(4))
