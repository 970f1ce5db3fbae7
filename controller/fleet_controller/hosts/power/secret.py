"""The password of a BMC: read when it is used, from a file or the environment, and kept nowhere."""

from __future__ import annotations

import os
import stat

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.spec import HostSpec

_MOST = 4096


def password(host: HostSpec) -> str:
    """ "" where none is set. Raises HostFailure (kind "config"); its text never holds what was read."""
    power = host.power
    if power.password_env is not None:
        found = os.environ.get(power.password_env)
        if not found:
            raise _failure(
                host,
                f"the environment variable {power.password_env} (power.password_env) is "
                f"{'empty' if found == '' else 'not set'} where the controller runs",
                "Set it before `fleetctl up`, or use power.password_file",
            )
        return _line(host, found, f"the environment variable {power.password_env}")
    path = power.password_file
    if path is None:
        return ""
    try:
        with path.open(encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IROTH | stat.S_IWOTH):
                raise _failure(
                    host,
                    f"{path} (power.password_file) may be read or written by every user of this machine",
                    f"chmod 600 {path}, and change the password",
                )
            return _line(host, file.read(_MOST), str(path))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise _failure(
            host, f"{path} (power.password_file) cannot be read: {why}", "Correct the path or its permissions"
        ) from None


def _line(host: HostSpec, text: str, where: str) -> str:
    line = text.partition("\n")[0].rstrip("\r")
    if not line or "\0" in line:
        raise _failure(
            host, f"{where} holds no password in its first line", "Write it there, and nothing else"
        )
    return line


def _failure(host: HostSpec, cause: str, next_step: str) -> HostFailure:
    return HostFailure(host.name, "config", cause, next_step)
