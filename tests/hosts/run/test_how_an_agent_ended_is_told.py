"""What a supervisor noted at an agent's end, in words; and the note itself, as a unit's shell writes it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fleet_controller.hosts.keeper.supervision.ends import noted_words, out_of_memory
from fleet_controller.hosts.keeper.supervision.unit import note_end

LIMIT = 300 << 20
REACHED = "out of memory: the limit agent.limits.memory 300 MiB was reached"
MACHINE = "killed by the kernel: the machine was out of memory"


@pytest.mark.parametrize(
    ("noted", "limit", "words"),
    [
        ("", LIMIT, ""),
        ("status \ncode \n", LIMIT, ""),
        ("oom_kill 1\nstatus KILL\n", LIMIT, ""),
        ("code exited\nstatus 7\noom_kill 1\n", LIMIT, "exit status 7"),
        ("code killed\nstatus KILL\n", LIMIT, "killed by signal 9"),
        ("code killed\nstatus KILL\noom 0\noom_kill 0\n", LIMIT, "killed by signal 9"),
        ("code dumped\nstatus SEGV\noom 1\noom_kill 1\n", LIMIT, "killed by signal 11"),
        ("code killed\nstatus RTMIN+1\n", LIMIT, "killed by signal RTMIN+1"),
        ("code killed\nstatus KILL\nlow 0\nhigh 0\nmax 9\noom 1\noom_kill 1\n", LIMIT, REACHED),
        ("code killed\nstatus KILL\noom_kill_disable 0\nunder_oom 0\noom_kill 1\n", LIMIT, REACHED),
        ("code killed\nstatus KILL\nmax 0\noom 0\noom_kill 1\n", LIMIT, MACHINE),
        ("code killed\nstatus KILL\noom_kill 1\n", None, MACHINE),
    ],
)
def test_its_words(noted: str, limit: int | None, words: str) -> None:
    assert noted_words(noted, limit) == words


def test_a_limit_is_told_as_it_was_written() -> None:
    said = [out_of_memory(limit).split("memory ")[-1] for limit in (64 << 30, 1536 << 20, 300_000_000)]
    assert said == ["64 GiB was reached", "1536 MiB was reached", "300 MB was reached"]


def test_the_units_shell_notes_the_end(tmp_path: Path) -> None:
    file = tmp_path / "a folder" / "ended"
    argv = note_end(str(file))
    assert not any("\n" in word for word in argv), "no line of a unit holds another"
    environment = {**os.environ, "EXIT_CODE": "killed", "EXIT_STATUS": "KILL"}
    file.parent.mkdir()
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert file.read_text().endswith("status KILL\ncode killed\n")
    assert list(file.parent.iterdir()) == [file]
