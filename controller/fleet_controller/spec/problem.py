"""What is wrong with a fleet.yaml, one line a problem."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Steps = tuple[str | int, ...]
"""The way from the top of the file to a place in it: ("pools", 0, "scaling")."""

_PASSWORD = re.compile(r"(://)[^/@\s\"]*@")


def written(steps: Steps) -> str:
    """`steps` as a YAML path: pools[0].scaling."""
    path = ""
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def one_line(text: str) -> str:
    """`text` with nothing in it that a terminal acts on, and without passwords of URLs."""
    text = _PASSWORD.sub(r"\1***@", text)
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


@dataclass(frozen=True, slots=True)
class Problem:
    """`message` says what is wrong and what to do. Lines and columns count from 1; line 0: the whole file."""

    message: str
    line: int = 0
    column: int = 0
    path: str = ""

    def text(self, file: str) -> str:
        place = f"{file}:{self.line}:{self.column}" if self.line else file
        return one_line(f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}")


class SpecError(Exception):
    """A fleet.yaml that can't be used. `problems` are in the file's order; str() is one line for each."""

    def __init__(self, problems: Sequence[Problem], source: Path) -> None:
        super().__init__(problems, source)
        self.problems = list(problems)
        self.source = source

    def __str__(self) -> str:
        return "\n".join(problem.text(str(self.source)) for problem in self.problems)
