"""`fleetctl exec` over real sshd: side by side, each line with its host, arguments as they are."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fleet_lab.lab import Lab

from fleetctl.render.chorus import COLOURS, colour_of

if TYPE_CHECKING:
    from conftest import Desk

ODD = [
    "",
    " ",
    "-n",
    "$(touch pwned)",
    "`id`",
    "a'b\"c",
    "*",
    "~",
    "{a,b}",
    "two\nlines",
    "é模\u202e",
    "\\",
    ";id",
]
# Prints its arguments as JSON.
ECHO = ["python3", "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]


@pytest.fixture
def three(desk: Desk, ssh_hosts: Lab) -> Lab:
    ssh_hosts(3)
    desk.write([host.entry() for host in ssh_hosts.hosts])
    return ssh_hosts


def test_each_line_has_its_host_and_keeps_its_stream(desk: Desk, three: Lab) -> None:
    ran = desk.run("exec", "--shell", "echo out; echo err >&2; echo $FLEET_LAB_HOST")
    assert ran.returncode == 0, ran.stderr
    out, err = ran.stdout.decode().splitlines(), ran.stderr.decode().splitlines()
    assert sorted(line for line in out if line.endswith("out")) == ["h1 | out", "h2 | out", "h3 | out"]
    assert sorted(err) == ["h1 | err", "h2 | err", "h3 | err"]
    # each really ran on its own host
    assert all(
        any(line.startswith(f"{name} | ") and line.endswith(f"/{name}") for line in out)
        for name in ("h1", "h3")
    )


def test_arguments_arrive_as_they_are_even_behind_a_noisy_login(desk: Desk, three: Lab) -> None:
    three.hosts[0].noisy()
    ran = desk.run("exec", "--host", "h1", "--host", "h[3]", "--", *ECHO, *ODD)
    assert ran.returncode == 0, ran.stderr
    said = dict(line.split(" | ", 1) for line in ran.stdout.decode().splitlines())
    assert {name: json.loads(text) for name, text in said.items()} == {"h1": ODD, "h3": ODD}
    assert ran.stderr == b""
    assert not list(desk.folder.rglob("pwned")) and not list(three.folder.rglob("pwned"))


def test_one_host_without_prefix_gives_its_bytes(desk: Desk, three: Lab) -> None:
    raw = bytes(range(256)) * 300
    (three.hosts[1].home / "raw").write_bytes(raw)
    ran = desk.run("exec", "--host", "h2", "--no-prefix", "cat", "raw")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, raw, b"")
    many = desk.run("exec", "--no-prefix", "true")
    assert many.returncode == 2
    assert b"--no-prefix is for one host, and these are 3" in many.stderr


def test_what_a_host_says_can_not_paint_the_screen(desk: Desk, three: Lab) -> None:
    ran = desk.run(
        "exec", "--host", "h1", "--", "printf", r"\033[2Jred\033]0;title\007 \342\200\256\rwhole\r\nlast"
    )
    assert ran.stdout == b"h1 | whole\nh1 | last\n"


def test_standard_input_is_empty_or_a_file(desk: Desk, three: Lab) -> None:
    assert desk.run("exec", "--host", "h1", "wc", "-c", stdin=b"not for the host").stdout == b"h1 | 0\n"
    big = os.urandom(300_000)
    (desk.folder / "big").write_bytes(big)
    assert b"h1 | 300000\n" in desk.run("exec", "--host", "h1", "--stdin", "big", "--", "wc", "-c").stdout
    piped = desk.run(
        "exec", "--host", "h1", "--stdin", "-", "--shell", "cat; echo $1", "--", "x y", stdin=b"piped\n"
    )
    assert piped.stdout == b"h1 | piped\nh1 | x y\n"


def test_the_exit_code_says_how_many_and_stderr_which(desk: Desk, three: Lab) -> None:
    here = "case $FLEET_LAB_HOST in */h2) exit 7;; */h3) kill -9 $$;; esac"
    some = desk.run("exec", "--shell", here)
    assert some.returncode == 3
    assert sorted(some.stderr.decode().splitlines()) == ["h2: exit status 7", "h3: ended by SIGKILL"]
    assert desk.run("exec", "--host", "h2", "--shell", here).returncode == 1
    missing = desk.run("exec", "--host", "h1", "--", "no-such-program", "-x")
    assert missing.returncode == 1
    assert (
        b"no-such-program: command not found" in missing.stderr and b"h1: exit status 127" in missing.stderr
    )
    three.hosts[0].kill()
    gone = desk.run("exec", "--host", "h1", "true")
    assert gone.returncode == 4
    assert b"h1: " in gone.stderr and b"Traceback" not in gone.stderr
    wrong = desk.run("exec", "--host", "h9", "true")
    assert (
        wrong.returncode == 2 and b'no host of fleet.yaml is called "h9"; it has h1, h2, h3' in wrong.stderr
    )
    assert desk.run("exec").returncode == 2


def test_json_is_an_object_a_host(desk: Desk, three: Lab) -> None:
    loud = "import sys; sys.stdout.write('x' * 3_000_000); sys.stderr.write('why\\n'); sys.exit(3)"
    ran = desk.run("exec", "--host", "h1", "--host", "h2", "-o", "json", "--", "python3", "-c", loud)
    assert ran.returncode == 1
    told = {one["host"]: one for one in map(json.loads, ran.stdout.splitlines())}
    assert sorted(told) == ["h1", "h2"] and ran.stderr == b""
    assert told["h1"] | {"stdout": ""} == {
        "schema": "fleetctl/exec/v1",
        "host": "h1",
        "status": 3,
        "stdout": "",
        "stderr": "why\n",
        "truncated": True,
        "error": "h1: exit status 3",
    }
    assert 1_000_000 < len(told["h1"]["stdout"]) < 1_100_000


def test_silent_hosts_hold_up_nobody(
    desk: Desk, three: Lab, black_hole: Callable[..., dict[str, Any]]
) -> None:
    holes = [black_hole(three.hosts[0], f"a{n}") for n in range(1, 6)]
    desk.write([*holes, *(host.entry() for host in three.hosts)])
    child = desk.start("exec", "--parallel", "2", "echo", "done")
    began = time.monotonic()
    while sum(line.endswith("| done") for line in child.lines) < 3:
        assert time.monotonic() - began < 20 and child.child.poll() is None, child.lines
        time.sleep(0.02)
    # the five that are silent come first in the file and outnumber --parallel; they are still waited for
    assert child.child.poll() is None
    assert child.child.wait(30) == 3
    assert sum("a1: " in line for line in child.lines) == 1


def left(three: Lab, what: str) -> list[str]:
    return [one.command for host in three.hosts for one in host.left() if what in one.command]


def test_ctrl_c_ends_the_command_on_the_hosts(desk: Desk, three: Lab, wait: Callable[..., None]) -> None:
    # A child of its own ends with it; SIGTERM alone would leave this one.
    stubborn = "trap '' TERM; sleep 611 & echo runs; wait; sleep 612"
    child = desk.start("exec", "--shell", stubborn)
    wait("it runs on three", lambda: sum(line.endswith("| runs") for line in child.lines) == 3)
    assert child.interrupt() == 130
    assert "interrupted before h1, h2, h3 had done it" in child.lines[-1]
    wait("nothing of it is left", lambda: not left(three, "sleep 61"))


def test_a_killed_fleetctl_leaves_nothing_running_there(
    desk: Desk, three: Lab, wait: Callable[..., None]
) -> None:
    child = desk.start("exec", "--host", "h1", "--shell", "echo runs; exec sleep 613")
    wait("it runs", lambda: child.lines)
    child.child.kill()
    wait("nothing of it is left", lambda: not left(three, "sleep 613"))


def test_a_command_that_takes_too_long_is_ended(desk: Desk, three: Lab) -> None:
    ran = desk.run("exec", "--host", "h1", "--timeout", "1s", "sleep", "614")
    assert ran.returncode == 1
    assert ran.stderr == b"h1: not done after 1s, and ended; --timeout gives it longer\n"
    assert left(three, "sleep 614") == []


def on_terminal(desk: Desk, *args: str, **env: str) -> str:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "fleetctl", *args],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=desk.folder,
        env={**desk.env, "TERM": "xterm-256color", **env},
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(ours, 65536):
            written += chunk
    os.close(ours)
    child.wait()
    return written.decode()


def test_a_colour_for_each_host_and_only_where_there_are_colours(desk: Desk, three: Lab) -> None:
    painted = on_terminal(desk, "exec", "echo", "hi")
    for name in ("h1", "h2", "h3"):
        assert f"\x1b[38;5;{colour_of(name)}m{name} |\x1b[0m hi" in painted
    assert "\x1b" not in on_terminal(desk, "exec", "echo", "hi", NO_COLOR="1")
    assert b"\x1b" not in desk.run("exec", "echo", "hi").stdout


def test_a_host_keeps_its_colour_whoever_else_is_there() -> None:
    assert colour_of("gpu-a") == colour_of("gpu-a")
    assert len({colour_of(f"gpu-{n}") for n in range(100)}) == len(COLOURS)


def test_local_hosts_run_it_here(desk: Desk) -> None:
    desk.write([{"name": "here", "address": "local"}])
    ran = desk.run("exec", "pwd")
    assert ran.stdout.decode() == f"here | {desk.folder}\n"
    assert not (Path(desk.folder) / ".fleetctl").exists()
    assert re.search(r"exit status 5", desk.run("exec", "--shell", "exit 5").stderr.decode())
