"""Which Python the agent runs with."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.speech import Trouble


def version_of(python: str) -> str:
    """ "3.11" of an interpreter. Raises Trouble when it cannot be run or is too old for the agent."""
    code = "import sys; print('fleet %d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [python, "-I", "-S", "-c", code],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
        )
    except FileNotFoundError:
        raise no_python(python, "is not there") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise no_python(python, f"cannot be run: {error}") from None
    words = done.stdout.decode("utf-8", "replace").split()
    if done.returncode or "fleet" not in words:
        raise no_python(python, "does not work: {}".format(done.stderr.decode("utf-8", "replace")[-300:]))
    version = words[words.index("fleet") + 1]
    if tuple(int(part) for part in version.split(".")) < (3, 11):
        raise no_python(python, f"is Python {version}, the agent needs 3.11 or newer")
    return version


def no_python(python: str, what: str) -> Trouble:
    step = "Install it (Debian, Ubuntu: `apt-get install -y python3 python3-venv`; Fedora: `dnf install -y python3`)"
    return Trouble(
        "python",
        f"{python} {what}",
        step + ", or name another in install.python or install.interpreter",
    )


def python_of(place: Place, args: dict[str, Any]) -> tuple[str, str]:
    """(interpreter of the agent, its environment's folder or "" where one was given)."""
    if args["interpreter"]:
        return os.path.expanduser(args["interpreter"]), ""
    base = place.path("environments", "{}-py{}".format(args["environment"], version_of(args["python"])))
    return os.path.join(base, "bin", "python"), base
