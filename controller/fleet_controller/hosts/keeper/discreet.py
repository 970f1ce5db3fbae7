"""Arguments of pip that hold a password are read from a file by it: everybody may see the arguments of a process."""

from __future__ import annotations

import re

# Of pip's options that name a place, those that a file of requirements may hold too.
_PLACES = {"-i": "--index-url", "-f": "--find-links"}
_LONG = ("--index-url", "--extra-index-url", "--find-links")
# Nothing that such a file would read as something else: blanks, quotes, a comment, a variable.
_SECRET_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'\\#$]*@[^\s\"'\\#$]+")


def discreet(pip_args: list[str]) -> tuple[list[str], list[str]]:
    """What stays an argument, and the lines for a file of requirements in place of the rest."""
    stays: list[str] = []
    lines: list[str] = []
    words = iter(pip_args)
    for word in words:
        name, equals, value = word.partition("=")
        name = _PLACES.get(name, name)
        if name not in _LONG:
            stays.append(word)
            continue
        behind = [] if equals else [one for one in [next(words, None)] if one is not None]
        value = "".join([value, *behind])
        if _SECRET_URL.fullmatch(value):
            lines.append(f"{name} {value}")
        else:
            stays += [word, *behind]
    return stays, lines
