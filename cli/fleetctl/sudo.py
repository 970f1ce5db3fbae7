"""`--ask-sudo-password`: asked once, without an echo, and kept nowhere."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

from fleetctl.failure import USAGE, Failed

if TYPE_CHECKING:
    from fleetctl.fleet import Fleet


def ask(wanted: bool) -> str | None:
    """The password, where `--ask-sudo-password` stands. Without a terminal it is the first line of what is piped in.

    Raises Failed (exit 2) where there is none.
    """
    if not wanted:
        return None
    try:
        if sys.stdin.isatty():
            password = getpass.getpass("sudo password for the hosts: ", stream=sys.stderr)
        else:
            password = sys.stdin.readline(4097).rstrip("\r\n")
    except (EOFError, UnicodeDecodeError):
        password = ""
    if not password or len(password) > 1024 or "\0" in password:
        raise Failed("--ask-sudo-password got no password that sudo could take", USAGE)
    return password


def hand_over(fleet: Fleet, password: str | None) -> None:
    """Give it to the controller that runs. Raises Failed where that does not take it."""
    if password is None:
        return
    # Not at the top: few commands need it.
    from fleet_controller.handover import HandoverError, hand_over

    try:
        hand_over(fleet.folder.path, password)
    except HandoverError as error:
        raise Failed(str(error)) from error
