from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.render.text import age, clean, line, number, size


@given(st.text())
def test_nothing_is_left_that_a_terminal_acts_on(text):
    assert all(c in "\n\t" or unicodedata.category(c) != "Cc" for c in clean(text))
    assert "\n" not in line(text)


@given(
    st.text(
        alphabet=st.characters(
            exclude_categories=["Cc", "Cs"],
            exclude_characters="\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
        )
    )
)
def test_plain_words_stay_as_they_are(text):
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("\x1b[2J\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07body", "body"),
        ("\x1b]8;;http://evil\x1b\\link", "link"),
        ("a\r\nb\rc", "a\nbc"),
        ("\x9b31mc1", "31mc1"),
        ("abc\u202edef", "abcdef"),
    ],
)
def test_escape_sequences_go_whole(text, left):
    assert clean(text) == left


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (200, "3m20s"),
        (7500, "2h5m"),
        (276_000, "3d4h"),
        (-3, "0s"),
    ],
)
def test_ages(seconds, text):
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (3, "3"), (0.016, "0.02"), (12.54, "12.5"), (310.7, "311"), (1e6, "1000000")],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (512, "512 B"), (1 << 30, "1 GiB"), (3 << 29, "1.5 GiB")]
)
def test_sizes(value, text):
    assert size(value) == text
