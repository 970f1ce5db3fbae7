"""Which wheels a host can use, and which of them it needs: decided here for a Python and a system that are not ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_controller.hosts.install import lock, target
from fleet_controller.hosts.install.lock import Lock, Wheel
from fleet_controller.hosts.install.target import Target

DEBIAN = Target((3, 11), "glibc", (2, 36), "x86_64")
targets = st.builds(
    Target,
    st.tuples(st.just(3), st.integers(11, 20)),
    st.sampled_from(["glibc", "musl"]),
    st.tuples(st.integers(1, 2), st.integers(0, 60)),
    st.sampled_from(["x86_64", "aarch64"]),
)


def wheel(name: str, *requires: str) -> Wheel:
    return Wheel(name, "1", f"{name}-1-py3-none-any.whl", 1, name.encode().hex().ljust(64, "0"), requires)


@given(targets)
def test_a_target_is_read_as_it_was_written(one: Target) -> None:
    assert target.parse(str(one)) == one
    assert one.serves(one)


@given(targets, targets)
def test_wheels_serve_a_newer_library_never_an_older_one(one: Target, other: Target) -> None:
    if one.serves(other) and other.serves(one):
        assert one == other
    if one.serves(other):
        assert set(one.platforms) <= set(other.platforms)


def test_the_tags_of_a_debian() -> None:
    assert DEBIAN.platforms[0] == "manylinux_2_36_x86_64"
    assert {"manylinux2014_x86_64", "manylinux_2_17_x86_64", "linux_x86_64"} <= set(DEBIAN.platforms)
    assert "manylinux_2_37_x86_64" not in DEBIAN.platforms
    assert Target((3, 12), "musl", (1, 2), "aarch64").platforms[0] == "musllinux_1_2_aarch64"


@pytest.mark.parametrize(
    "text", ["", "py2.7-glibc2.1-x86_64", "py3.11-glibc2-x86_64", "py3.11-glibc2.36-x86_64; rm"]
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"py3\.11-glibc2\.36-x86_64"):
        target.parse(text)


def test_a_python_without_wheels_is_said() -> None:
    with pytest.raises(ValueError, match="pypy"):
        target.told({"implementation": "pypy", "python": "3.11", "libc": "glibc2.36", "machine": "x86_64"})


def test_conditions_hold_for_the_target_and_not_for_the_python_that_asks() -> None:
    wheels = [
        wheel(
            "top",
            "old; python_version < '3.12'",
            "cuda; platform_machine == 'x86_64'",
            "fast; extra == 'fast'",
        ),
        wheel("old"),
        wheel("windows-only"),
        wheel("fast"),
    ]
    assert lock.lacking(wheels, ["top"], DEBIAN) == ["cuda"]
    assert [one.name for one in lock.needed(wheels, ["top"], DEBIAN)] == ["old", "top"]
    newer = Target((3, 12), "glibc", (2, 36), "aarch64")
    assert lock.lacking(wheels, ["top"], newer) == []
    assert [one.name for one in lock.needed(wheels, ["top[fast]"], newer)] == ["fast", "top"]


def test_circles_end_and_names_are_compared_as_pip_does() -> None:
    wheels = [wheel("A_b", "c.D"), wheel("c-d", "a-b")]
    assert len(lock.needed(wheels, ["a.b"], DEBIAN)) == 2


def test_a_lock_is_read_as_it_was_written_and_a_damaged_one_is_refused() -> None:
    made = Lock(DEBIAN, ("top",), (wheel("top", "old"), wheel("old")))
    assert lock.read(made.text()).text() == made.text()
    assert lock.read(made.text()).key == made.key
    for damage in ("{}", "[]", "no json", made.text().replace("v1", "v9"), made.text()[:-20]):
        with pytest.raises(ValueError):
            lock.read(damage)
