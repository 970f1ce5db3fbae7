"""Runs a program as root on this host: as root itself, by sudo that asks nothing, or by sudo with the password given.

The password comes in the errand's arguments, so on standard input, and goes on to sudo's standard input alone: never
into an argument, the environment, a file or a log. `sudo -n` is tried first, for a sudo that asks nothing would leave
the password to the program it runs; `-k` makes the second one ask for certain, and keep no ticket afterwards. The
program itself gets an empty standard input, so a wrong password is not tried again with something else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from fleet_controller.hosts.keeper.speech import Trouble

SECONDS = 60.0
# Where programs of root lie, which a login's PATH may leave out.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Elevation:
    """How this user becomes root. `password` is sudo's; None: it was not given."""

    def __init__(self, password: str | None) -> None:
        self._password = password
        self._way = "root" if os.geteuid() == 0 else ""

    def way(self) -> str:
        """ "root", "sudo" or "sudo with password". Raises Trouble("sudo") where there is none."""
        if not self._way:
            self.run(["true"])
        return self._way

    def run(self, argv: list[str], timeout_s: float = SECONDS) -> subprocess.CompletedProcess[bytes]:
        """Run it as root and wait; its exit status is the caller's to judge.

        Raises Trouble("sudo") where this user may not, and Trouble("command") where it does not end in time.
        """
        if self._way == "root":
            return done(argv, b"", timeout_s)
        sudo = shutil.which("sudo", path=os.environ.get("PATH", "") + ":" + PATH)
        if sudo is None:
            raise refused("sudo is not installed here", "Install sudo, or let ssh.user be root")
        if self._way in ("", "sudo"):
            result = done([sudo, "-n", "--", *argv], b"", timeout_s)
            said = complaint(result)
            if not said:
                self._way = "sudo"
                return result
            if "password" not in said and "terminal" not in said:
                raise not_allowed(said)
            if self._password is None:
                raise refused(
                    "sudo asks for a password here",
                    "Give it with --ask-sudo-password, or allow this user sudo without one (NOPASSWD in sudoers)",
                )
        assert self._password is not None
        result = done([sudo, "-k", "-S", "-p", "", "--", *argv], self._password.encode() + b"\n", timeout_s)
        said = complaint(result)
        if "incorrect password" in said or "no password was provided" in said:
            raise refused("sudo does not take the password", "Give the right one with --ask-sudo-password")
        if said:
            raise not_allowed(said)
        self._way = "sudo with password"
        return result

    def dressed(self, argv: list[str]) -> tuple[list[str], bytes]:
        """For a program whose output is to be read while it runs: what to start, and what goes to its stdin first.

        Raises Trouble("sudo").
        """
        way = self.way()
        if way == "root":
            return argv, b""
        sudo = shutil.which("sudo", path=os.environ.get("PATH", "") + ":" + PATH) or "sudo"
        if way == "sudo":
            return [sudo, "-n", "--", *argv], b""
        assert self._password is not None
        return [sudo, "-k", "-S", "-p", "", "--", *argv], self._password.encode() + b"\n"


def elevation_of(args: dict[str, Any]) -> Elevation:
    """As the errand's arguments have it: `sudo_password`, which may be missing."""
    return Elevation(args.get("sudo_password"))


def done(
    argv: list[str], stdin: bytes, timeout_s: float, more: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run it and wait; 127 where it is not there. `more` is added to the environment."""
    # sudo's own words are looked at, so they must not be translated.
    env = dict(os.environ, LC_ALL="C", PATH=os.environ.get("PATH", "") + ":" + PATH, **(more or {}))
    try:
        return subprocess.run(argv, input=stdin, capture_output=True, timeout=timeout_s, env=env)
    except subprocess.TimeoutExpired:
        program = next((word for word in argv if word != "--" and not word.startswith("-")), argv[0])
        raise Trouble(
            "command", f"{program} did not end within {timeout_s:.0f} s", "See what holds it up on the host"
        ) from None
    except FileNotFoundError:
        return subprocess.CompletedProcess(argv, 127, b"", f"{argv[0]}: not found".encode())


def complaint(result: subprocess.CompletedProcess[bytes]) -> str:
    """What sudo itself says against it; "" where the program ran."""
    if result.returncode != 1:
        return ""
    text = result.stderr.decode("utf-8", "replace")
    marks = (
        "a password is required",
        "a terminal is required",
        "you must have a tty",
        "incorrect password attempt",
        "no password was provided",
        "is not in the sudoers file",
        "is not allowed to execute",
        "is not allowed to run sudo",
        "may not run sudo",
        "account validation failure",
        "no new privileges",
    )
    return " ".join(text.split())[-300:] if any(mark in text for mark in marks) else ""


def not_allowed(said: str) -> Trouble:
    if "tty" in said:
        return refused(
            "sudo wants a terminal here (requiretty)",
            "Write `Defaults:USER !requiretty` in /etc/sudoers.d, or let ssh.user be root",
        )
    return refused(
        f"this user may not become root: {said}",
        "Allow it in /etc/sudoers.d, or let ssh.user be one who may; what needs no root is done without",
    )


def refused(cause: str, next_step: str) -> Trouble:
    return Trouble("sudo", cause, next_step)
