"""Following a log that is rotated, over connections that break: each line once, in its order."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fleet_lab.lab import Lab
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_controller.hosts.keeper.growth import MOST, Growth
from fleetctl.chronology import Told, at_of, merged

if TYPE_CHECKING:
    from conftest import Desk


def rotate(log: Path) -> None:
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))


def read_on(growth: Growth, cursor: str, into: list[str]) -> tuple[str, bool]:
    """Read until nothing more comes."""
    anything_lost = False
    while True:
        lines, after, lost = growth.after(cursor)
        anything_lost |= lost
        into += lines
        if after == cursor:
            return cursor, anything_lost
        cursor = after


# What happens to a log between two looks: lines are written (some in halves), at most one rotation.
STEP = st.lists(st.one_of(st.integers(1, 4), st.just("half")), max_size=4)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(STEP, st.booleans(), STEP), max_size=8), st.booleans())
def test_whatever_is_written_is_read_once(story, begun):
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "agent.log"
        growth, wrote, half = Growth(str(log)), [], ""
        seen: list[str] = []

        def write(step) -> None:
            nonlocal half
            with log.open("a") as file:
                for what in step:
                    if what == "half":
                        half += f"half{len(wrote)}-"
                        file.write(f"half{len(wrote)}-")
                    else:
                        for _ in range(what):
                            wrote.append(f"{half}line {len(wrote)} é")
                            file.write(f"line {len(wrote) - 1} é\n")
                            half = ""

        if begun:
            log.touch()
        first, cursor = growth.end(100)
        assert first == []
        for before, rotated, after in story:
            write(before)
            if rotated and log.exists():
                rotate(log)
                if half:  # nobody ends that line any more
                    wrote.append(half)
                    half = ""
                log.touch()
            write(after)
            cursor, lost = read_on(growth, cursor, seen)
            assert not lost
        assert seen == [line for line in wrote if line]


def test_what_was_lost_is_said(tmp_path):
    log = tmp_path / "agent.log"
    growth = Growth(str(log))
    log.write_text("".join(f"a{n}\n" for n in range(100)))
    lines, cursor = growth.end(3)
    assert lines == ["a97", "a98", "a99"]
    rotate(log)
    log.write_text("b\n" * 1000)
    rotate(log)  # the a's are gone, before anybody looked
    log.write_text("c\n")
    seen: list[str] = []
    cursor, lost = read_on(growth, cursor, seen)
    assert lost and seen[-1] == "c"
    log.write_text("")  # emptied in place
    assert growth.after(cursor)[2] is True


def test_a_megabyte_without_a_line_end_and_the_end_through_a_rotation(tmp_path):
    log = tmp_path / "agent.log"
    log.write_text("old 1\nold 2\n")
    rotate(log)
    log.write_text("new\n" + "x" * 1_000_000)
    growth = Growth(str(log))
    lines, cursor = growth.end(3)
    assert lines == ["old 1", "old 2", "new"]
    seen: list[str] = []
    cursor, lost = read_on(growth, cursor, seen)
    assert not lost and sum(len(one) for one in seen) > 1_000_000 - MOST
    assert growth.end(0)[0] == []


def test_lines_of_several_hosts_by_their_times():
    def line(at: str, text: str) -> str:
        return json.dumps({"at": at, "message": text})

    told = {
        "here": Told(
            [line("2026-01-01T10:00:01.000", "b"), "  a traceback of b", line("2026-01-01T10:00:03.5", "d")]
        ),
        "berlin": Told([line("2026-01-01T11:00:00.000", "a"), line("2026-01-01T11:00:02.000", "c")], 3600),
        "controller": Told(["2026-01-01 10:00:04,000 INFO e", "not a time"]),
    }
    texts = [re.sub(r'.*"message": "(\w)".*', r"\1", text) for _, text in merged(told)]
    assert texts == ["a", "b", "  a traceback of b", "c", "d", "2026-01-01 10:00:04,000 INFO e", "not a time"]
    assert at_of("{broken") is None and at_of("[1]") is None and at_of('{"at": 5}') is None
    assert at_of("2026-99-99 00:00:00") is None


@pytest.fixture
def two(desk: Desk, ssh_hosts: Lab) -> Lab:
    ssh_hosts(2)
    desk.write([host.entry() for host in ssh_hosts.hosts])
    for host in ssh_hosts.hosts:
        (host.home / ".fleetctl" / "test" / host.name / "run").mkdir(parents=True)
    return ssh_hosts


def log_of(lab: Lab, name: str) -> Path:
    [host] = [host for host in lab.hosts if host.name == name]
    return host.home / ".fleetctl" / "test" / name / "run" / "agent.log"


def append(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def test_the_end_of_several(desk: Desk, two: Lab) -> None:
    append(log_of(two, "h1"), '{"at": "2026-01-01T00:00:01.000"}', '{"at": "2026-01-01T00:00:03.000"}')
    append(log_of(two, "h2"), '{"at": "2026-01-01T00:00:02.000"}', "\x1b[2Jtail\x07")
    ran = desk.run("logs", "h*", "-n", "5")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.decode().splitlines() == [
        'h1 | {"at": "2026-01-01T00:00:01.000"}',
        'h2 | {"at": "2026-01-01T00:00:02.000"}',
        "h2 | �[2Jtail�",
        'h1 | {"at": "2026-01-01T00:00:03.000"}',
    ]
    assert desk.run("logs", "h1", "--since", "1h").stdout == b""
    two.hosts[1].kill()
    some = desk.run("logs", "h1", "h2", "-n", "1")
    assert some.returncode == 3 and some.stdout == b'h1 | {"at": "2026-01-01T00:00:03.000"}\n'
    assert b"h2: " in some.stderr


@pytest.mark.slow
def test_following_two_hosts_through_rotation_and_an_outage(
    desk: Desk, two: Lab, wait: Callable[..., None]
) -> None:
    one, other = log_of(two, "h1"), log_of(two, "h2")
    append(one, "before")
    child = desk.start("logs", "-f", "-n", "1", "h1", "h2")
    wait("the end of the first", lambda: "h1 | before" in child.lines)
    append(other, "the first line of a log that was not there")
    wait("it", lambda: "h2 | the first line of a log that was not there" in child.lines)
    append(one, "a1", "a2")
    rotate(one)
    append(one, "a3")
    wait("both sides of the rotation", lambda: "h1 | a3" in child.lines)
    two.hosts[1].drop_logins()
    append(other, "b1")
    wait("a connection that broke is made again", lambda: "h2 | b1" in child.lines)
    two.hosts[1].kill()
    wait(
        "the outage is said",
        lambda: any(line.startswith("h2: ") and "tried again" in line for line in child.lines),
    )
    append(one, "a4")
    wait("the other goes on", lambda: "h1 | a4" in child.lines)
    append(other, "b2")
    rotate(other)
    append(other, "b3")
    two.hosts[1].start()
    wait("it is back", lambda: "h2 | b3" in child.lines, 60)
    assert child.interrupt() == 130
    own = [line for line in child.lines if " | " in line]
    assert [line for line in own if line.startswith("h1")] == [
        f"h1 | {t}" for t in ("before", "a1", "a2", "a3", "a4")
    ]
    assert [line for line in own if line.startswith("h2")][1:] == [f"h2 | {t}" for t in ("b1", "b2", "b3")]
    assert "h2 answers again" in child.lines
