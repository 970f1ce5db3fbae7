"""Stop strings, in a text that comes in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_agent.generate.stops import Stops


def through(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    watch = Stops(stops)
    out = ""
    for piece in pieces:
        text, over = watch.push(piece)
        out += text
        if over:
            return out, True
    return out + watch.rest(), False


@pytest.mark.parametrize(
    ("stops", "pieces", "text", "over"),
    [
        ([], ["a", "b"], "ab", False),
        (["END"], ["some E", "ND more"], "some ", True),
        (["END"], ["some EN", "TRY"], "some ENTRY", False),
        (["aab"], ["a", "a", "a", "b", "c"], "a", True),
        (["x", "yz"], ["ay", "zx"], "a", True),
        (["longer stop", "er"], ["long", "er stop"], "long", True),
    ],
)
def test_a_text_ends_before_its_stop_string(stops, pieces, text, over):
    assert through(stops, pieces) == (text, over)


def test_what_cannot_be_a_stop_string_is_let_through_at_once():
    watch = Stops(["END"])
    assert watch.push("so far E") == ("so far ", False)
    assert watch.push("a") == ("Ea", False)


@settings(max_examples=60)
@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    pieces=st.lists(st.text("ab", max_size=5), max_size=8),
)
def test_how_the_text_is_cut_makes_no_difference(stops, pieces):
    text = "".join(pieces)
    assert through(stops, pieces) == through(stops, list(text))
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert through(stops, [text]) == ((text[: min(ends)[1]], True) if ends else (text, False))
