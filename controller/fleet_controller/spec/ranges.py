"""Ranges in host names and addresses: `gpu-[01:16]`, `10.0.1.[11:26]`, `gpu-[1,3,8:10]`. PURE.

A start with leading zeros pads every number to its width. Several ranges multiply, the last one fastest.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

MOST = 10_000
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_ITEM = re.compile(r"(\d{1,9})(?::(\d{1,9}))?", re.ASCII)
# "[3-6]" is good in a glob; nobody means one by "[01-16]".
_LOOKS_LIKE_RANGE = re.compile(r"\[\s*\d+\s*[:,]|\[\d{2,}-|\[\d+-\d{2,}", re.ASCII)


class RangeError(ValueError):
    """A range that can't be expanded; the message says what to write instead."""


def has_range(text: str) -> bool:
    """Whether `text` holds a range such as `[01:16]` (a glob's `[ab]` and `[3-6]` are none)."""
    return bool(_LOOKS_LIKE_RANGE.search(text))


def expand(text: str) -> list[str]:
    """All the texts that `text` stands for, in order; `[text]` if it holds no range.

    Raises RangeError for a broken range and for more than 10,000 results (before making them).
    """
    literals: list[str] = []
    choices: list[_Choice] = []
    end = 0
    total = 1
    for found in _BRACKETS.finditer(text):
        literals.append(_literal(text, text[end : found.start()]))
        choice = _Choice(found[1])
        total *= choice.count
        if total > MOST:
            raise RangeError(f'"{text[:60]}" stands for more than {MOST:,} names; use a smaller range')
        choices.append(choice)
        end = found.end()
    literals.append(_literal(text, text[end:]))
    if not choices:
        return [text]
    return [
        "".join(itertools.chain.from_iterable(zip(literals, (*numbers, ""), strict=True)))
        for numbers in itertools.product(*choices)
    ]


def _literal(text: str, piece: str) -> str:
    if "[" in piece or "]" in piece:
        raise RangeError(f'"{text[:60]}" has a bracket without its partner; write a range like "gpu-[01:16]"')
    return piece


class _Choice:
    """What stands between one pair of brackets: `01:16` or `1,3,8:10`."""

    def __init__(self, written: str) -> None:
        self._parts: list[tuple[int, int, int]] = []
        self.count = 0
        for item in written.split(","):
            found = _ITEM.fullmatch(item.strip())
            if not found:
                raise RangeError(f'"[{written[:40]}]" is not a range; {_hint(written)}')
            first, last = found[1], found[2] if found[2] is not None else found[1]
            padded = len(first) > 1 and first.startswith("0")
            if (padded or (len(last) > 1 and last.startswith("0"))) and len(first) != len(last):
                raise RangeError(
                    f'"[{written[:40]}]": both ends need the same number of digits to pad with zeros; '
                    f'did you mean "[{first.zfill(len(last))}:{last.zfill(len(first))}]"?'
                )
            if int(last) < int(first):
                raise RangeError(f'"[{written[:40]}]" counts down; did you mean "[{last}:{first}]"?')
            self._parts.append((int(first), int(last), len(first) if padded else 0))
            self.count += int(last) - int(first) + 1

    def __iter__(self) -> Iterator[str]:
        for first, last, width in self._parts:
            for number in range(first, last + 1):
                yield str(number).zfill(width)


def _hint(written: str) -> str:
    for between in ("..", "-", " "):
        first, found, last = written.partition(between)
        if found and first.strip().isascii() and first.strip().isdigit() and last.strip().isdigit():
            return f'did you mean "[{first.strip()}:{last.strip()}]"?'
    return 'write it like "[01:16]"'
