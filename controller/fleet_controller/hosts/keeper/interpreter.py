"""Which Python the agent runs with, and for which wheels it is."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from fleet_controller.hosts.keeper.environment import whole
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.release import needs, not_installed
from fleet_controller.hosts.keeper.speech import Trouble

# Its C library and machine decide which wheels it can use; both are its own, which may not be the kernel's.
_ASK = """
import json, os, sys, sysconfig
try:
    libc = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
except (ValueError, OSError):
    libc = []
print("fleet " + json.dumps({
    "python": "%d.%d" % sys.version_info[:2],
    "implementation": sys.implementation.name,
    "machine": sysconfig.get_platform().rsplit("-", 1)[-1],
    "libc": libc[0] + ".".join(libc[1].split(".")[:2]) if libc else "musl1.2",
}))
"""


def facts_of(python: str) -> dict[str, Any]:
    """Version, implementation, machine and C library of an interpreter.

    Raises Trouble when it cannot be run or is too old for the agent.
    """
    try:
        done = subprocess.run(
            [python, "-I", "-S", "-c", _ASK],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
        )
    except FileNotFoundError:
        raise no_python(python, "is not there") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise no_python(python, f"cannot be run: {error}") from None
    lines = [
        line for line in done.stdout.decode("utf-8", "replace").splitlines() if line.startswith("fleet ")
    ]
    try:
        facts = json.loads(lines[-1][len("fleet ") :])
        version = str(facts["python"])
        numbers = tuple(int(part) for part in version.split("."))
    except (IndexError, ValueError, KeyError, TypeError):
        words = done.stderr.decode("utf-8", "replace")[-300:]
        raise no_python(python, f"does not work: {words}") from None
    if numbers < (3, 11):
        raise no_python(python, f"is Python {version}, the agent needs 3.11 or newer")
    return dict(facts)


def version_of(python: str) -> str:
    """ "3.11" of an interpreter. Raises Trouble when it cannot be run or is too old for the agent."""
    return str(facts_of(python)["python"])


def no_python(python: str, what: str) -> Trouble:
    step = "Install it (Debian, Ubuntu: `apt-get install -y python3 python3-venv`; Fedora: `dnf install -y python3`)"
    return Trouble(
        "python",
        f"{python} {what}",
        step + ", or name another in install.python or install.interpreter",
    )


def environment_of(place: Place, name: str) -> str:
    """Folder of the environment of this name."""
    return place.path("environments", name)


def python_of(place: Place, args: dict[str, Any]) -> str:
    """The interpreter that the release `key` runs with, its environment proved to be whole. Raises Trouble."""
    if args["interpreter"]:
        return os.path.expanduser(str(args["interpreter"]))
    name = needs(place, args["key"]).get("environment")
    if not isinstance(name, str) or not name or not whole(environment_of(place, name)):
        raise not_installed(args["key"])
    return os.path.join(environment_of(place, name), "bin", "python")
