from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_controller.spec.ranges import MOST, RangeError, expand, has_range

plain = st.text(st.characters(codec="ascii", exclude_characters="[]"), max_size=8)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("gpu", ["gpu"]),
        ("gpu-[1:3]", ["gpu-1", "gpu-2", "gpu-3"]),
        ("gpu-[08:11]", ["gpu-08", "gpu-09", "gpu-10", "gpu-11"]),
        ("10.0.1.[254:255]", ["10.0.1.254", "10.0.1.255"]),
        ("r[1:2]-n[01:02]", ["r1-n01", "r1-n02", "r2-n01", "r2-n02"]),
        ("g[1,3,8:9]x", ["g1x", "g3x", "g8x", "g9x"]),
        ("g[7]", ["g7"]),
        ("g[0:0]", ["g0"]),
    ],
)
def test_expands(text: str, names: list[str]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize(
    "text", ["g[", "g]", "g[]", "g[1:", "g[a:b]", "g[1..3]", "g[1-3]", "g[3:1]", "g[01:100]", "g[1:099]", "g[[1:2]]",
             "g[1:2:3]", "g[-1:2]", "g[1:10001]", "g[1:200][1:200]", "g[1:9999999999]", "g[\u0661:3]"]
)  # fmt: skip
def test_refuses(text: str) -> None:
    with pytest.raises(RangeError):
        expand(text)


def test_tells_a_range_from_a_glob() -> None:
    assert has_range("gpu-[01:16]") and has_range("gpu-[1,3]")
    assert not has_range("gpu-[ab]") and not has_range("gpu-*") and not has_range("gpu-[3-6]")
    assert has_range("gpu-[01-16]")  # refused with "did you mean [01:16]?" rather than read as a glob


@given(plain, st.integers(0, 5000), st.integers(0, 300), st.integers(0, 6), plain)
def test_every_number_once_in_order_padded_to_one_width(
    before: str, first: int, more: int, width: int, after: str
) -> None:
    last = first + more
    low, high = str(first).zfill(width), str(last).zfill(width)
    if len(low) != len(high) and low.startswith("0") and len(low) > 1:
        return
    names = expand(f"{before}[{low}:{high}]{after}")
    numbers = [name[len(before) : len(name) - len(after)] for name in names]
    assert [int(number) for number in numbers] == list(range(first, last + 1))
    if low.startswith("0") and len(low) > 1:
        assert {len(number) for number in numbers} == {len(low)}
    else:
        assert all(number == str(int(number)) for number in numbers)


@given(st.text(st.sampled_from("ga0129[]:,- "), max_size=20))
def test_anything_expands_within_bounds_or_is_refused(text: str) -> None:
    try:
        names = expand(text)
    except RangeError:
        return
    assert 1 <= len(names) <= MOST
