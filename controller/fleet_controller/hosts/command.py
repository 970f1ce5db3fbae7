"""A command for a machine, as a value. The one place where anything is quoted for a shell. PURE."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

# Linux refuses a single argument of more than 128 KiB (MAX_ARG_STRLEN), and the whole line is one for the shell.
MAX_LINE_BYTES = 128 * 1024 - 1

# Words that a shell would carry out itself instead of starting a program of that name (POSIX 2.4, 2.14, and bash).
_SHELL_WORDS = frozenset(
    [
        "!",
        "[[",
        ".",
        ":",
        "alias",
        "bg",
        "bind",
        "break",
        "builtin",
        "caller",
        "case",
        "cd",
        "command",
        "compgen",
        "complete",
        "continue",
        "coproc",
        "declare",
        "dirs",
        "disown",
        "do",
        "done",
        "elif",
        "else",
        "enable",
        "esac",
        "eval",
        "exec",
        "exit",
        "export",
        "fc",
        "fg",
        "fi",
        "for",
        "function",
        "getopts",
        "hash",
        "help",
        "history",
        "if",
        "in",
        "jobs",
        "let",
        "local",
        "logout",
        "mapfile",
        "popd",
        "pushd",
        "read",
        "readarray",
        "readonly",
        "return",
        "select",
        "set",
        "shift",
        "shopt",
        "source",
        "suspend",
        "then",
        "time",
        "times",
        "trap",
        "type",
        "typeset",
        "ulimit",
        "umask",
        "unalias",
        "unset",
        "until",
        "wait",
        "while",
        "{",
        "}",
    ]
)


@dataclass(frozen=True)
class Command:
    """A program with its arguments. Each element of `argv` reaches the program as it is, whatever it contains.

    `timeout_s` None: the transport's own. `output_limit` bytes of stdout and of stderr are kept each.
    Raises ValueError for what no program can be given: NUL, text that is not UTF-8, a name that reads as an
    option or an assignment.
    """

    argv: tuple[str, ...]
    stdin: bytes = field(default=b"", repr=False)
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None
    output_limit: int = 64 * 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "argv", tuple(self.argv))
        if not self.argv or not self.argv[0]:
            raise ValueError("a command needs the name of a program")
        for text in (*self.argv, *self.env.values()):
            if "\0" in text:
                raise ValueError(f"a command cannot contain the character NUL: {text!r}")
            try:
                text.encode()
            except UnicodeEncodeError:
                raise ValueError(f"a command must be valid Unicode: {text!r}") from None
        for name in self.env:
            if not _NAME.match(name):
                raise ValueError(f"{name!r} is not the name of an environment variable")
        program = self.argv[0]
        if program.startswith("-") or "=" in program:
            raise ValueError(
                f"{program!r} is not the name of a program (it reads as an option or an assignment)"
            )
        if len(self.line().encode()) > MAX_LINE_BYTES:
            raise ValueError(
                f"the command {program!r} is longer than {MAX_LINE_BYTES} bytes; send data on stdin"
            )

    def line(self) -> str:
        """The command as one line for a POSIX shell, which starts the program with exactly these arguments."""
        words = list(self.argv)
        if self.env or words[0] in _SHELL_WORDS:
            words = ["env", *(f"{name}={value}" for name, value in self.env.items()), *words]
        return shlex.join(words)
