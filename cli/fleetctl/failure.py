"""How a command can end: the exit codes, and the failures that carry one."""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
PARTLY = 3
UNREACHABLE = 4
INTERRUPTED = 130


class Failed(Exception):
    """A command can't go on. `str()` is what the operator reads; `exit_code` one of the above."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(Failed):
    """The operator pressed Ctrl-C; the message says what goes on without them and how to take it up again."""

    def __init__(self, message: str) -> None:
        super().__init__(message, INTERRUPTED)
