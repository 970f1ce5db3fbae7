"""What ~/.ssh/config says of a host. OpenSSH itself is asked (`ssh -G`), so that Host, Match, Include and the order of
its rules mean exactly what they mean to `ssh`: nothing is read a second time, in a second way.

What is different: the system's /etc/ssh/ssh_config is not looked at, and options that fleetctl has no use for
(forwarding, ciphers, ControlMaster) are passed over. `Match exec` runs its command, as it does for `ssh`.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet_controller.hosts.failure import HostFailure, brief
from fleet_controller.hosts.inheritance import inherited

_LIMIT_S = 10.0
_NO = ("none", "no", "")


@dataclass(frozen=True)
class Words:
    """What `ssh` would do for one host. None or (): nothing is said, and fleetctl's own default holds.

    `agent` is the path of a socket, "none", or None: that of SSH_AUTH_SOCK. Times in seconds.
    """

    address: str
    user: str
    port: int
    jump: str | None
    proxy_command: str | None
    identity_files: tuple[Path, ...]
    certificates: tuple[Path, ...]
    identities_only: bool
    agent: str | None
    known_hosts: tuple[Path, ...]
    key_alias: str | None
    connect_timeout: float | None
    keepalive: float | None


class ClientConfig:
    """One such file. Safe for threads; every host is asked for once, until the file changes."""

    def __init__(self, path: Path, withheld: frozenset[str] = frozenset()) -> None:
        """`ssh`, and what its `Match exec` runs, does not inherit the `withheld` variables."""
        self._path = path
        self._withheld = withheld
        self._lock = threading.Lock()
        self._stamp: object = None
        self._known: dict[tuple[str, ...], Words] = {}
        self._usual: frozenset[str] | None = None

    def of(self, label: str, address: str, user: str | None = None, port: int | None = None) -> Words | None:
        """For `ssh [-l user] [-p port] address`; None where there is no such file.

        Raises HostFailure (kind "config") with the file's line where it is broken.
        """
        try:
            stat = self._path.stat()
        except OSError:
            return None
        if stat.st_uid not in (0, os.getuid()) or stat.st_mode & 0o022:
            raise self._broken(
                label, "may be written by others, so it is not read", f"Run `chmod 600 {self._path}`"
            )
        asked = (*(("-l", user) if user else ()), *(("-p", str(port)) if port else ()), "--", address)
        with self._lock:
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp != self._stamp:
                self._stamp, self._known = stamp, {}
            if asked not in self._known:
                self._known[asked] = self._words(label, asked)
            return self._known[asked]

    def _words(self, label: str, asked: tuple[str, ...]) -> Words:
        if self._usual is None:
            # The key files that ssh tries where nothing names any: they are no wish of the operator's.
            self._usual = frozenset(_values(self._ask(label, "none", ("--", "x")), "identityfile"))
        return interpret(self._ask(label, str(self._path), asked), self._usual)

    def _ask(self, label: str, path: str, asked: tuple[str, ...]) -> list[tuple[str, str]]:
        argv = ("ssh", "-T", "-G", "-F", path, *asked)
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_LIMIT_S,
                env=inherited(self._withheld),
            )
        except FileNotFoundError:
            raise self._broken(
                label,
                "is read by OpenSSH's own client (`ssh -G`), and there is no `ssh` on this machine",
                "Install openssh-client",
            ) from None
        except subprocess.TimeoutExpired:
            raise self._broken(
                label, f"was not read within {_LIMIT_S:g} s", "See its `Match exec` lines"
            ) from None
        except OSError as error:
            raise self._broken(
                label, f"cannot be read: {error.strerror}", "See this machine's `ssh`"
            ) from None
        if done.returncode:
            said = brief(done.stderr) or f"ssh -G ended with {done.returncode}"
            raise self._broken(label, f"is not right: {said}", "Correct that line")
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        return [(key, value) for key, _, value in (line.partition(" ") for line in lines)]

    def _broken(self, label: str, what: str, next_step: str) -> HostFailure:
        return HostFailure(
            label,
            "config",
            f"{self._path} {what}",
            f'{next_step}, or write "ssh: {{config: none}}" in fleet.yaml',
        )


def interpret(said: list[tuple[str, str]], usual: Iterable[str] = ()) -> Words:
    """What `ssh -G` printed, as Words. PURE but for this machine's names in the %-tokens."""
    first = dict(reversed(said))  # of what is said twice, the first holds
    address, user, port = first["hostname"], first["user"], int(first["port"])
    tokens = {
        "%%": "%",
        "%d": str(Path.home()),
        "%h": address,
        "%i": str(os.getuid()),
        "%k": first.get("hostkeyalias", address),
        "%L": socket.gethostname().partition(".")[0],
        "%l": socket.gethostname(),
        "%n": first.get("host", address),
        "%p": str(port),
        "%r": user,
        "%u": getpass.getuser(),
    }
    files = _values(said, "identityfile")
    agent = first.get("identityagent")
    jump = first.get("proxyjump", "none")
    proxy = first.get("proxycommand", "none")
    known = (*first.get("userknownhostsfile", "").split(), *first.get("globalknownhostsfile", "").split())
    return Words(
        address=address,
        user=user,
        port=port,
        jump=None if jump in _NO else expand(jump, tokens),
        proxy_command=None if proxy in _NO else expand(proxy, tokens),
        identity_files=() if set(files) == set(usual) else _paths(files, tokens),
        certificates=_paths(_values(said, "certificatefile"), tokens),
        identities_only=first.get("identitiesonly") == "yes",
        agent=_agent(agent, tokens),
        known_hosts=_paths(known, tokens),
        key_alias=first.get("hostkeyalias"),
        connect_timeout=_seconds(first.get("connecttimeout")),
        keepalive=_seconds(first.get("serveraliveinterval")),
    )


def _values(said: list[tuple[str, str]], key: str) -> list[str]:
    return [value for one, value in said if one == key]


def _paths(written: Iterable[str], tokens: Mapping[str, str]) -> tuple[Path, ...]:
    return tuple(Path(expand(one, tokens)).expanduser() for one in written if one not in _NO)


def _agent(written: str | None, tokens: Mapping[str, str]) -> str | None:
    if written is None or written == "SSH_AUTH_SOCK":
        return None
    if written in _NO:
        return "none"
    if written.startswith("$") and not written.startswith("${"):
        return os.environ.get(written[1:], "none")
    return str(Path(expand(written, tokens)).expanduser())


def _seconds(written: str | None) -> float | None:
    # ssh's own default, "none" or 0, is not taken for a wish: fleetctl never waits without an end.
    return float(written) if written and written.isdigit() and int(written) else None


def expand(text: str, tokens: Mapping[str, str]) -> str:
    """`text` with ssh_config(5)'s tokens and ${VARIABLES}; what is not known stays as it is."""
    return re.sub(
        r"%[%A-Za-z]|\$\{(\w+)\}",
        lambda found: os.environ.get(found[1], found[0]) if found[1] else tokens.get(found[0], found[0]),
        text,
    )
