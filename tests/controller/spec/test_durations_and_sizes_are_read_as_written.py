from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_controller.spec.duration import LONGEST, seconds
from fleet_controller.spec.size import size

UNITS = [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("2d", 172800),
        (5, 5),
        (0.5, 0.5),
        ("1.5h", 5400),
        ("1m30s", 90),
        (" 5 m ", 300),
        ("0s", 0),
    ],
)
def test_duration(written: object, value: float) -> None:
    assert seconds(written) == pytest.approx(value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("30sec", '"30s"'),
        ("5 minutes", '"5m"'),
        ("2 hours", '"2h"'),
        ("1day", '"1d"'),
        ("30", '"30s"'),
        ("100 millis", '"100ms"'),
        ("5min", '"5m"'),
    ],
)
def test_duration_that_was_nearly_right(written: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {meant}"):
        seconds(written)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "s",
        "-5s",
        "1h1h",
        "30m1h",
        "5y",
        "1e9s",
        "\u0665s",
        "9" * 400 + "s",
        -1,
        math.nan,
        math.inf,
        10**400,
        True,
        None,
        [],
        {},
        "4000d",
    ],
)
def test_not_a_duration(written: object) -> None:
    with pytest.raises(ValueError):
        seconds(written)


@given(st.lists(st.integers(0, 800), min_size=4, max_size=4).filter(any))
def test_the_parts_of_a_duration_add_up(counts: list[int]) -> None:
    text = "".join(f"{n}{unit}" for n, (unit, _) in zip(counts, UNITS, strict=True) if n)
    assert seconds(text) == sum(n * worth for n, (_, worth) in zip(counts, UNITS, strict=True))


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.lists(st.integers())))
def test_anything_is_a_usable_duration_or_a_value_error(written: object) -> None:
    try:
        assert 0 <= seconds(written) <= LONGEST
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("8GiB", 8 * 2**30),
        ("512MiB", 512 * 2**20),
        ("40GB", 40 * 10**9),
        (123, 123),
        ("123", 123),
        ("1.5GiB", 3 * 2**29),
        ("80 GiB", 80 * 2**30),
        ("10B", 10),
        (0, 0),
    ],
)
def test_size(written: object, value: int) -> None:
    assert size(written) == value


@pytest.mark.parametrize(
    ("written", "meant"), [("8G", "8GiB"), ("8gb", "8GB"), ("8gib", "8GiB"), ("512m", "512MiB")]
)
def test_size_that_was_nearly_right(written: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f'did you mean "{meant}"'):
        size(written)


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.lists(st.integers())))
def test_anything_is_a_usable_size_or_a_value_error(written: object) -> None:
    try:
        assert 0 <= size(written) <= 2**50
    except ValueError as error:
        assert str(error)
