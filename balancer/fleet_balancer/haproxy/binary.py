"""Which HAProxy is run: the one that `--haproxy` or FLEETCTL_HAPROXY names, else the first on PATH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

# Where Debian puts it, which is not on a user's PATH.
_SBIN = ("/usr/local/sbin", "/usr/sbin")
# 2.6 is the first with option idle-close-on-response, json_query and dynamic use_backend as they are used here.
OLDEST = (2, 6)
_ASK_S = 10.0


class NoHaproxy(Exception):
    """There is none that can be used; str() says what, why, and what to do."""


@dataclass(frozen=True)
class Binary:
    path: str
    version: tuple[int, int]


def find_haproxy() -> Binary:
    """The HAProxy to run. Raises NoHaproxy."""
    named = os.environ.get("FLEETCTL_HAPROXY")
    path = shutil.which(named or "haproxy", path=os.pathsep.join((os.environ.get("PATH", ""), *_SBIN)))
    if path is None:
        where = f"FLEETCTL_HAPROXY={named} is not a program" if named else "there is no haproxy on PATH"
        raise NoHaproxy(
            f"engine haproxy runs a HAProxy of {OLDEST[0]}.{OLDEST[1]} or later, and {where}: install it (Debian, "
            f"Ubuntu: apt-get install haproxy), name it in FLEETCTL_HAPROXY, or use engine builtin"
        )
    try:
        said = subprocess.run(
            [path, "-vv"], capture_output=True, text=True, timeout=_ASK_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoHaproxy(f"engine haproxy: {path} -vv: {error}") from None
    return _judged(path, said)


def _judged(path: str, said: str) -> Binary:
    found = re.search(r"HAProxy version (\d+)\.(\d+)", said)
    if found is None:
        raise NoHaproxy(f"engine haproxy: {path} -vv does not say its version: is it HAProxy?")
    version = int(found[1]), int(found[2])
    if version < OLDEST:
        raise NoHaproxy(
            f"engine haproxy: {path} is version {version[0]}.{version[1]}, and {OLDEST[0]}.{OLDEST[1]} is the oldest "
            f"that will do: install a later one and name it in FLEETCTL_HAPROXY, or use engine builtin"
        )
    for feature, purpose in (
        ("LUA", "requests wait while there is no host"),
        ("OPENSSL", "API keys and TLS"),
    ):
        if not re.search(rf"\+{feature}\b|USE_{feature}=1", said):
            raise NoHaproxy(
                f"engine haproxy: {path} was built without {feature}, which it needs for this: {purpose}; use Debian's "
                f"haproxy (name it in FLEETCTL_HAPROXY), or engine builtin"
            )
    return Binary(path, version)
