"""FleetFile: an edit counts once it was seen twice the same; a bad one is read once and not again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fleet_controller.fleetfile import FleetFile
from fleet_controller.spec import SpecError

Write = Callable[..., Path]


def test_an_edit_counts_when_it_was_seen_twice_the_same(write: Write) -> None:
    file = FleetFile(write())
    file.load()
    assert [file.changed(), file.changed()] == [False, False]
    write("# one\n")
    assert not file.changed()  # an editor may still be at it
    write("# one\n# two\n")
    assert not file.changed()
    assert file.changed()
    assert file.changed()  # until it is loaded
    file.load()
    assert not file.changed()


def test_a_change_and_back_is_none(write: Write) -> None:
    file = FleetFile(write())
    file.load()
    write("# one\n")
    assert not file.changed()
    write()
    assert [file.changed(), file.changed()] == [False, False]


@pytest.mark.parametrize("text", ["fleet: [", "hosts: {}\n", "no_such_key: 1\n"])
def test_a_bad_one_is_reported_once(write: Write, text: str) -> None:
    file = FleetFile(write())
    file.load()
    write(text)
    assert [file.changed(), file.changed()] == [False, True]
    with pytest.raises(SpecError):
        file.load()
    assert [file.changed(), file.changed()] == [False, False]
    write()
    assert [file.changed(), file.changed()] == [False, True]


def test_a_file_that_is_gone_is_no_change_and_its_return_is_one_if_it_differs(write: Write) -> None:
    path = write()
    file = FleetFile(path)
    file.load()
    path.unlink()
    assert [file.changed(), file.changed()] == [False, False]
    write("# back\n")
    assert [file.changed(), file.changed()] == [False, True]
