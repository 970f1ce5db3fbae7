"""Other processes, and processes that die while they write."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fleet_controller.journal import Journal
from fleet_controller.lifecycle import HostState

Program = Callable[..., subprocess.Popen[str]]

# Forks writers that print a number only after its commit was acknowledged, and kills each at a random moment.
KILLED_WRITERS = """
import os, random, signal
from fleet_controller.lifecycle import HostState
number = 0
for kill in range(30):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        journal = Journal.open(url)
        while True:
            number += 1
            key = journal.ask("n", number=number)
            action = journal.begin("a", "start", "default", "", number, HostState.BOOTING)
            journal.conclude(action, HostState.FAILED, "", number)
            os.write(write, f"{key} {number}\\n".encode())
    os.close(write)
    said = b""
    until = time.monotonic() + random.uniform(0.05, 0.2)
    while time.monotonic() < until or b"\\n" not in said:
        said += os.read(read, 65536)
        if time.monotonic() > until + 5:
            sys.exit("nothing was written")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(read, 65536):
        said += more
    os.close(read)
    print(said.decode(), end="")
    number = int(said.split()[-1]) + 10
    for action in (journal := Journal.open(url)).open_actions():  # the next one goes on from there
        journal.conclude(action, HostState.FAILED, "", number)
    journal.close()
"""


def test_a_writer_killed_30_times_loses_nothing_that_was_acknowledged(
    journal: Journal, program: Program, url: str
) -> None:
    said, _ = program(KILLED_WRITERS).communicate(timeout=60)
    acknowledged = [tuple(map(int, line.split())) for line in said.splitlines()]
    assert len(acknowledged) >= 30
    there = {r.id: r.args["number"] for r in journal.asked()}
    assert [pair for pair in acknowledged if there.get(pair[0]) != pair[1]] == []
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    # an action and its host's state are never apart
    unfinished = connection.execute("SELECT count(*) FROM actions WHERE finished_at IS NULL").fetchone()
    connection.close()
    assert unfinished == (0,)
    assert journal.hosts()["a"].state is HostState.FAILED


ASK = """
journal = Journal.open(url)
print("ready", flush=True)
sys.stdin.readline()
for n in range(60):
    journal.ask("n", by=NAME, n=n)
"""
REPLY = """
journal = Journal.open(url)
print("ready", flush=True)
sys.stdin.readline()
done = 0
while done < 120:
    for request in journal.asked():
        journal.reply(request, time.time(), True, f"{request.args['by']} {request.args['n']}")
        done += 1
"""


def test_two_processes_asking_and_one_answering_lose_no_request(journal: Journal, program: Program) -> None:
    processes = [program(ASK.replace("NAME", "'x'")), program(ASK.replace("NAME", "'y'")), program(REPLY)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [p.wait(60) for p in processes] == [0, 0, 0]
    assert journal.asked() == []
    answers = [journal.answer(key) for key in range(1, 121)]
    assert sorted(a.message for a in answers if a) == sorted(f"{by} {n}" for by in "xy" for n in range(60))
    assert journal.answer(121) is None


BEGIN = """
from fleet_controller.lifecycle import HostState
journal = Journal.open(url)
print("ready", flush=True)
sys.stdin.readline()
won = 0
for n in range(40):
    try:
        journal.begin("abc"[n % 3], "start", None, "", float(n), HostState.BOOTING)
        won += 1
    except Busy:
        pass
print(won)
"""


def test_a_host_has_one_open_action_however_many_processes_begin_one(
    journal: Journal, program: Program
) -> None:
    processes = [program(BEGIN) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    won = [int(p.communicate("go\n", timeout=60)[0]) for p in processes]
    assert sum(won) == 3
    assert sorted(a.host for a in journal.open_actions()) == ["a", "b", "c"]


OPEN = """
print("ready", flush=True)
sys.stdin.readline()
journal = Journal.open(url)
journal.ask("opened")
"""


def test_a_fresh_store_opened_by_several_processes_at_once_is_made_once(program: Program, url: str) -> None:
    processes = [program(OPEN) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [p.wait(60) for p in processes] == [0] * 4
    opened = Journal.open(url)
    assert len(opened.asked()) == 4
    opened.close()


def test_threads_share_a_journal(journal: Journal) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: journal.record(float(n), "noise", str(n)), range(200)))
    assert sorted(int(e.reason) for e in journal.events()) == list(range(200))


FULL_DISK = """
import resource
journal = Journal.open(url)
for n in range(5):
    journal.ask("before", n=n)
size = max(p.stat().st_size for p in __import__("pathlib").Path(url.removeprefix("sqlite:///")).parent.iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, resource.RLIM_INFINITY))
try:
    for n in range(1000):
        journal.ask("while", n=n)
except JournalError as error:
    print(error)
print(len(journal.asked()) - n)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(journal.ask("after") > 0)
"""


def test_a_full_disk_is_one_sentence_and_over_when_there_is_room(
    program: Program, journal: Journal, tmp_path: Path
) -> None:
    said, _ = program(FULL_DISK).communicate(timeout=60)
    lines = said.splitlines()
    assert "the state store can't be used: " in lines[0]
    assert lines[1:] == ["5", "True"]  # all that was acknowledged can still be read, and it goes on
