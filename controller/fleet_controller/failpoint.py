"""Failpoints: places at which a test has the controller die, fail or hang (as etcd's gofail).

`FLEETCTL_FAILPOINT=machine.start.after=kill` names one; `=raise` and `=hang` are the other two, and `@3` behind it
means the third time it is reached instead of the first. Each effect and each commit has a point before and one after
it. Without the variable nothing is wrapped, and they cost nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from itertools import count
from typing import Any, Literal, TypeVar, cast

VARIABLE = "FLEETCTL_FAILPOINT"
MARK = "failpoint"

How = Literal["kill", "raise", "hang"]
Method = TypeVar("Method", bound=Callable[..., Any])


class FailpointReached(RuntimeError):
    """What `raise` raises: to the code around it, a bug."""


class Failpoint:
    """The one that is armed. `text` is NAME=HOW[@N]. Raises ValueError where it is not."""

    def __init__(self, text: str) -> None:
        self.name, _, how = text.partition("=")
        word, _, times = how.partition("@")
        if word not in ("kill", "raise", "hang") or not self.name:
            raise ValueError(f"{VARIABLE}={text!r} is not NAME=kill, NAME=raise or NAME=hang")
        self.how = cast(How, word)
        self._last = int(times or "1")
        self._times = count(1)

    def reach(self, name: str) -> None:
        """Do it, if this is the place and the time."""
        if name != self.name or next(self._times) != self._last:
            return
        sys.stderr.write(f"failpoint {name}: {self.how}\n")
        sys.stderr.flush()
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "hang":
            threading.Event().wait()
        raise FailpointReached(name)


ARMED = Failpoint(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def around(name: str) -> Callable[[Method], Method]:
    """Put NAME.before and NAME.after around a method that has an effect or commits something."""

    def wrap(method: Method) -> Method:
        setattr(method, MARK, name)
        if ARMED is None:
            return method
        armed = ARMED

        @wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            armed.reach(f"{name}.before")
            result = method(*args, **kwargs)
            armed.reach(f"{name}.after")
            return result

        return cast(Method, wrapped)

    return wrap
