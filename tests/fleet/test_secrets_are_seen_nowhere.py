"""Canaries in the place of every secret, and a process that looks at all others' arguments and environments meanwhile.

A whole fleet on real sshd: up, requests, scale, exec, logs, a support bundle, down. Then every log, the journal, the
hosts' folders and the bundle are searched. What is expected to hold a secret is named one by one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fleet_lab.host import make_key, program
from fleet_lab.lab import Lab

if TYPE_CHECKING:
    from conftest import Fleet

pytestmark = pytest.mark.slow

# Looks at every process of this machine as fast as it can, and says which of the words it saw, where, and of whom.
# The words come on stdin, a list a line, and are never in its own arguments. It itself, and who asked, are left out.
SAMPLER = r'''
import json, os, sys, time
words = [word.encode() for word in json.loads(sys.stdin.readline())]
left_out = {os.getpid(), os.getppid()}
seen, looks, processes = set(), 0, set()
def read(name, what):
    with open(f"/proc/{name}/{what}", "rb") as file:
        return file.read()
def look(name):
    """Until a new process has become its program it has its parent's environment: both are to be of the same moment."""
    try:
        for _ in range(5):
            before, environ, line = read(name, "cmdline"), read(name, "environ"), read(name, "cmdline")
            if before == line:
                return line, environ
    except OSError:
        pass
    return b"", b""
print("looking", flush=True)
os.set_blocking(0, False)
while True:
    more = sys.stdin.buffer.raw.read(4096)
    if more == b"":
        break
    if more:
        words += [word.encode() for word in json.loads(more)]
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in left_out:
            continue
        line, environ = look(name)
        processes.add(name)
        who = line.replace(b"\0", b" ").decode("utf-8", "replace")[:200]
        for number, word in enumerate(words):
            if word in line:
                seen.add(f"{number} cmdline {who}")
            if word in environ:
                seen.add(f"{number} environ {who}")
    looks += 1
    time.sleep(0.01)
print(json.dumps({"looks": looks, "processes": len(processes), "seen": sorted(seen)}), flush=True)
'''


def canary(what: str) -> str:
    """A text that is nowhere else."""
    return f"cnry{what}" + os.urandom(9).hex()


@pytest.fixture
def agent_with_key(ssh_hosts: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The lab's key gets a passphrase, and lies opened in an ssh-agent. The passphrase."""
    passphrase = canary("phrase")
    key = make_key(ssh_hosts.client_key, passphrase)
    answer = tmp_path / "askpass"
    (tmp_path / "phrase").write_text(passphrase)
    answer.write_text(f"#!/bin/sh\ncat '{tmp_path / 'phrase'}'\n")
    answer.chmod(0o700)
    socket = f"/tmp/canary-agent-{os.getpid()}"
    agent = subprocess.Popen([program("ssh-agent"), "-D", "-a", socket], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not Path(socket).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    monkeypatch.setenv("SSH_AUTH_SOCK", socket)
    env = {**os.environ, "SSH_ASKPASS": str(answer), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    subprocess.run([program("ssh-add"), "-q", str(key)], env=env, check=True, stdin=subprocess.DEVNULL)
    (tmp_path / "phrase").unlink()
    yield passphrase
    agent.terminate()
    agent.wait()
    Path(socket).unlink(missing_ok=True)


class Sampler:
    """The process that looks."""

    def __init__(self, words: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SAMPLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "looking\n"

    def also(self, word: str) -> None:
        """Look for this one too, from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([word]) + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        said, _ = self._process.communicate("", timeout=30)
        found: dict[str, Any] = json.loads(said)
        return found


def test_the_sampler_sees_what_it_is_to_see() -> None:
    word, other, later = canary("seen"), canary("env"), canary("later")
    sampler = Sampler([word, other])
    subprocess.run(["sleep", "0.5"], env={**os.environ, "X": other}, check=True)
    subprocess.run(["sh", "-c", "sleep 0.5; :", word], check=True)
    sampler.also(later)
    subprocess.run(["sh", "-c", "sleep 1; :", later], check=True)
    seen = sampler.end()["seen"]
    assert {" ".join(one.split(" ", 2)[:2]) for one in seen} >= {"0 cmdline", "1 environ", "2 cmdline"}


def holders(folder: Path, words: list[str]) -> set[tuple[str, int]]:
    """(file, number of the word) of every file below the folder in which one stands."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            found |= {
                (str(path.relative_to(folder)), n) for n, word in enumerate(words) if word.encode() in data
            }
    return found


@pytest.mark.timeout(600)
def test_no_canary_in_arguments_environments_logs_journal_or_bundle(
    agent_with_key: str, fleet: Fleet, ssh_hosts: Lab
) -> None:
    sudo, bmc_file, bmc_env, index = (canary(what) for what in ("sudo", "bmcfile", "bmcenv", "index"))
    tokens = {name: canary("token") for name in ("balancer", "host-h1", "host-h2")}
    [one, two] = ssh_hosts(2)
    password = fleet.folder / "bmc-password"
    password.write_text(bmc_file + "\n")
    password.chmod(0o600)
    # Nobody answers there: the machine is on anyhow, its power control is unknown.
    power = {"driver": "ipmi", "bmc": "127.0.0.1:1", "user": "root", "call_timeout": "1s"}
    pip = ["--index-url", f"https://reader:{index}@pypi.invalid/simple"]
    entries = [
        one.entry(power=power | {"password_file": str(password)}),
        two.entry(power=power | {"password_env": "CANARY_BMC"}),
    ]
    for entry in entries:
        entry["install"] = {**entry["install"], "pip_args": pip}  # type: ignore[dict-item]
    state = fleet.folder / ".fleetctl" / "test"
    (state / "tokens").mkdir(parents=True, mode=0o700)
    for name, token in tokens.items():
        (state / "tokens" / name).write_text(token)
        (state / "tokens" / name).chmod(0o600)
    fleet.write(
        f"hosts: {json.dumps(entries)}",
        {"min_servers": 1, "max_servers": 2},
        balancer={"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "keys": "required"},
    )
    # what an operator puts into the environment is in that of fleetctl and of the controller, and of nobody else
    fleet.environment["CANARY_BMC"] = bmc_env
    # The agents stop; that the machines are off can't be proved without their power control.
    fleet.down_may_end_with = {0, 1, 3}
    words = [sudo, bmc_file, bmc_env, index, agent_with_key, *tokens.values()]
    sampler = Sampler(words)
    key = fleet.cli("keys", "create", "alice").strip()
    sampler.also(key)
    fleet.cli("up")
    headers = {"authorization": f"Bearer {key}"}
    body = {"instances": [[1.0, 2.0, 3.0, 4.0]]}
    url = f"{fleet.endpoint}/v1/models/tiny:predict"
    assert httpx.post(url, json=body, headers=headers, timeout=30).status_code == 200
    fleet.cli("scale", "2")
    asked = fleet.run("exec", "--sudo", "--ask-sudo-password", "--", "id", "-un", stdin=f"{sudo}\n")
    assert asked.returncode == 0, asked.stderr
    said = asked.stdout + asked.stderr
    for looking in (
        ["logs", "h1", "h2", "controller"],
        ["status", "-o", "json"],
        ["events", "-n", "1000", "-o", "json"],
    ):
        said += fleet.cli(*looking)
    said += fleet.run("doctor", "-o", "json").stdout
    fleet.cli("support-bundle", "-o", "bundle.tar.gz")
    kept = holders(state, [*words, key]) | {
        (f"{h.name}/{f}", n) for h in (one, two) for f, n in holders(h.home, words)
    }
    fleet.run("down", "--yes")
    seen = sampler.end()
    assert seen["looks"] > 50 and seen["processes"] > 50
    outside = [
        row
        for row in seen["seen"]
        if not (row.startswith("2 environ") and ("fleetctl" in row or "fleet_controller" in row))
    ]
    assert outside == [], "in a process's arguments or environment"
    assert not any(row for row in seen["seen"] if " cmdline " in row)

    # Each of these is made to hold one of them, and readable by its owner alone.
    allowed = {("tokens/" + name, 5 + n) for n, name in enumerate(tokens)}
    allowed |= {(f"{h}/.fleetctl/test/{h}/run/token", 6 + n) for n, h in enumerate(("h1", "h2"))}
    allowed.add(("last-good-fleet.yaml", 3))  # as in fleet.yaml, where the operator wrote it
    rest = {
        (file, n)
        for file, n in kept - allowed
        if not (file.startswith("balancer.state.json") and n in (6, 7))
    }
    assert rest == set(), "in a file"
    after = holders(state, [*words, key])
    assert {(file, n) for file, n in after - allowed if not file.startswith("balancer.state.json")} == set()
    for name, _ in after:
        assert (state / name).stat().st_mode & 0o077 == 0, name

    with tarfile.open(fleet.folder / "bundle.tar.gz") as tar:
        texts = {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]
    assert len(texts) > 15
    for name, data in texts.items():
        for number, word in enumerate([*words, key]):
            assert word.encode() not in data, (name, number)
    assert not any(word in said for word in [*words, key])
