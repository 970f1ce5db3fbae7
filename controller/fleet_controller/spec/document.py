"""YAML text -> plain values that know where they were written. Decides what YAML is accepted.

YAML 1.2 core types (so `on`, `off`, `yes` and 12:30 are texts), one document, no tags. Anchors, aliases and
merge keys work within bounds: what aliases stand for counts each time. Reads events, never builds a file's
objects itself, so neither a deep nor a self-repeating file costs more than its bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from fleet_controller.spec.problem import Problem, SpecError, Steps, written

MOST_BYTES = 1024 * 1024
MOST_NODES = 100_000
MOST_DEPTH = 32
MOST_KEYS = 1_000

Spot = tuple[int, int]
_INT = re.compile(r"[-+]?[0-9]{1,18}", re.ASCII)
_HEX_OCTAL = re.compile(r"0o[0-7]{1,20}|0x[0-9a-fA-F]{1,15}", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_TAG_FOR_TEXT = "tag:yaml.org,2002:str"


class Node:
    """A value, where it starts, and the values in it. `size` and `height` count aliases in full."""

    __slots__ = ("children", "height", "keys", "size", "spot", "value")

    def __init__(self, value: Any, spot: Spot) -> None:
        self.value = value
        self.spot = spot
        self.size = 1
        self.height = 1
        self.children: dict[str | int, Node] = {}
        self.keys: dict[str, Spot] = {}


class Document:
    """A file's plain value, and where each part of it was written."""

    def __init__(self, root: Node) -> None:
        self._root = root
        self.value = root.value

    def spot(self, steps: Steps, *, key: bool = False) -> Spot:
        """Line and column (from 1) of the value at `steps` or its key; if there is none, of the block."""
        node = self._root
        spot = node.spot
        for number, step in enumerate(steps):
            last = number == len(steps) - 1
            if isinstance(step, str) and step in node.keys and (last and key):
                return node.keys[step]
            child = node.children.get(step)
            if child is None:
                return spot
            # What lacks a key is pointed at by its own key: "ssh:" says more than the line under it.
            spot = child.spot if last or not isinstance(step, str) else node.keys.get(step, child.spot)
            node = child
        return spot


def read(path: Path) -> Document:
    """The document in `path`. Raises SpecError for a file that can't be read or is not YAML."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise _refused(path, 'no such file; "fleetctl init" writes one') from None
    except IsADirectoryError:
        raise _refused(path, "is a folder; name the fleet.yaml in it") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise _refused(path, f"can't be read: {why}") from None
    return parse(data, path)


def parse(data: bytes, path: Path) -> Document:
    """`data` (read from `path`) as a document. Raises SpecError."""
    if len(data) > MOST_BYTES:
        raise _refused(path, 'is over 1 MiB; describe many hosts by ranges, as "gpu-[01:16]"')
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise _refused(path, "is not UTF-8 text; save it as UTF-8", line, column) from None
    found = _CONTROL.search(text)
    if found:
        line, column = (
            text.count("\n", 0, found.start()) + 1,
            found.start() - text.rfind("\n", 0, found.start()),
        )
        what = "a NUL byte" if found[0] == "\0" else f"the control character U+{ord(found[0]):04X}"
        raise _refused(path, f"has {what}; is it a YAML file?", line, column)
    composer = _Composer(text)
    try:
        root = composer.root()
    except _Stop as stop:
        composer.problems.append(stop.problem)
        root = None
    except MarkedYAMLError as error:
        composer.problems.append(_syntax(error, text))
        root = None
    except (
        YAMLError,
        ValueError,
        OverflowError,
        ArithmeticError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        # The parser meets bad escapes and directives with errors of its inner workings.
        line, column = composer.last
        composer.problems.append(Problem(f"is not YAML near here: {type(error).__name__}", line, column))
        root = None
    if composer.problems or root is None:
        raise SpecError(sorted(composer.problems, key=lambda p: (p.line, p.column)), path)
    return Document(root)


def _refused(path: Path, message: str, line: int = 0, column: int = 0) -> SpecError:
    return SpecError([Problem(message, line, column)], path)


class _Stop(Exception):
    def __init__(self, message: str, spot: Spot, steps: Steps = ()) -> None:
        self.problem = Problem(message, *spot, path=written(steps))


def _spot(event: Any) -> Spot:
    return event.start_mark.line + 1, event.start_mark.column + 1


class _Composer:
    """Events -> nodes. Collects problems that reading can go on after; raises _Stop for others."""

    def __init__(self, text: str) -> None:
        self.problems: list[Problem] = []
        self.last: Spot = (1, 1)
        self._events: Iterator[Any] = iter(YAML(typ="safe", pure=True).parse(text))
        self._anchors: dict[str, Node | None] = {}
        self._nodes = 0

    def root(self) -> Node:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    raise _Stop(
                        'a second document starts here; one file is one fleet, remove the "---"', _spot(event)
                    )
                root = self._node(next(self._events), (), 1)
        if root is None or root.value is None:
            raise _Stop('is empty; "fleetctl init" shows what belongs in it', (1, 1))
        return root

    def _node(self, event: Any, steps: Steps, depth: int) -> Node:
        self.last = spot = _spot(event)
        if isinstance(event, AliasEvent):
            return self._alias(event, steps)
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise _Stop(f"more than {MOST_NODES:,} values; describe many hosts by ranges", spot)
        if depth > MOST_DEPTH:
            raise _Stop(f"is nested more than {MOST_DEPTH} deep", spot)
        anchor = event.anchor
        if anchor is not None:
            self._anchors[anchor] = None
        tag = str(event.tag) if event.tag is not None else None
        if tag not in (None, "!") and not (tag == _TAG_FOR_TEXT and isinstance(event, ScalarEvent)):
            self._add(f'the tag "{str(tag)[:60]}" is not supported; remove it', spot, steps)
        if isinstance(event, ScalarEvent):
            node = Node(_scalar(event), spot)
            if isinstance(node.value, str) and _CONTROL.search(node.value):
                self._add("has a control character in it; remove it", spot, steps)
        elif isinstance(event, SequenceStartEvent):
            node = self._sequence(spot, steps, depth)
        elif isinstance(event, MappingStartEvent):
            node = self._mapping(spot, steps, depth)
        else:
            raise _Stop("is not YAML", spot)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _alias(self, event: Any, steps: Steps) -> Node:
        name, spot = event.anchor, _spot(event)
        if name not in self._anchors:
            hint = ""
            if not re.fullmatch(r"\w+", name) or "*" in name:
                hint = f'; a text that starts with "*" needs quotes: "*{name}"'
            raise _Stop(f'"*{name[:40]}" repeats an anchor that is not defined before it{hint}', spot, steps)
        node = self._anchors[name]
        if node is None:
            raise _Stop(f'"*{name[:40]}" repeats an anchor inside itself', spot, steps)
        return node

    def _sequence(self, spot: Spot, steps: Steps, depth: int) -> Node:
        node = Node([], spot)
        while not isinstance(event := next(self._events), SequenceEndEvent):
            number = len(node.value)
            child = self._node(event, (*steps, number), depth + 1)
            node.value.append(child.value)
            node.children[number] = child
            self._grow(node, child, event)
        return node

    def _mapping(self, spot: Spot, steps: Steps, depth: int) -> Node:
        node = Node({}, spot)
        merges: list[tuple[Node, Spot]] = []
        while not isinstance(event := next(self._events), MappingEndEvent):
            key_spot = _spot(event)
            if not isinstance(event, ScalarEvent):
                raise _Stop(
                    "a key must be a plain name; a text that starts with { or [ or * needs quotes",
                    key_spot,
                    steps,
                )
            key = event.value
            merge = key == "<<" and event.implicit[0]
            if len(key) > 1000 or _CONTROL.search(key):
                raise _Stop("a key is over 1,000 characters long or has control characters", key_spot, steps)
            if len(node.keys) >= MOST_KEYS:
                raise _Stop(f"more than {MOST_KEYS:,} keys in one block", key_spot, steps)
            if event.anchor is not None:
                raise _Stop("an anchor on a key is not supported; remove it", key_spot, (*steps, key))
            child = self._node(value_event := next(self._events), (*steps, key), depth + 1)
            self._grow(node, child, value_event)
            if merge:
                merges.append((child, key_spot))
            elif key in node.keys:
                first = node.keys[key][0]
                self._add(f"is written twice (first in line {first}); remove one", key_spot, (*steps, key))
            else:
                node.keys[key] = key_spot
                node.children[key] = child
                node.value[key] = child.value
        for merged, key_spot in merges:
            self._merge(node, merged, key_spot, steps)
        return node

    def _merge(self, node: Node, merged: Node, spot: Spot, steps: Steps) -> None:
        sources = list(merged.children.values()) if isinstance(merged.value, list) else [merged]
        for source in sources:
            if not isinstance(source.value, dict):
                self._add('"<<" takes a mapping, as "<<: *anchor"', spot, steps)
                return
            for key, child in source.children.items():
                if key not in node.children:
                    node.children[key] = child
                    node.keys[str(key)] = source.keys[str(key)]
                    node.value[key] = child.value

    def _grow(self, node: Node, child: Node, event: Any) -> None:
        node.size += child.size
        if node.size > MOST_NODES:
            raise _Stop(f"aliases repeat to more than {MOST_NODES:,} values; write them out", _spot(event))
        node.height = max(node.height, child.height + 1)
        if node.height > MOST_DEPTH:
            raise _Stop(f"is nested more than {MOST_DEPTH} deep", _spot(event))

    def _add(self, message: str, spot: Spot, steps: Steps) -> None:
        self.problems.append(Problem(message, *spot, path=written(steps)))


def _scalar(event: Any) -> str | int | float | bool | None:
    text: str = event.value
    if not event.implicit[0] or event.tag is not None:
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INT.fullmatch(text):
        return int(text)
    if _HEX_OCTAL.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if re.fullmatch(r"[-+]?\.(inf|Inf|INF)", text):
        return -math.inf if text.startswith("-") else math.inf
    return math.nan if text in (".nan", ".NaN", ".NAN") else text


def _syntax(error: MarkedYAMLError, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    why = error.problem or "is not YAML"
    lines = text.splitlines()
    here = lines[line - 1] if line <= len(lines) else ""
    if "'\\t'" in why or "\t" in here[: len(here) - len(here.lstrip())]:
        return Problem("a tab; YAML is indented with spaces, replace it", line, here.find("\t") + 1 or column)
    opened = error.context_mark
    since = (
        f" (opened in line {opened.line + 1})"
        if opened and error.problem_mark and opened.line + 1 != line
        else ""
    )
    hints = {
        "mapping values are not allowed": 'a ":" where none can be; check the indentation, or use quotes',
        "found unexpected end of stream": "a quote is not closed",
        "expected the node content": "a value is missing, or a bracket is not closed",
        "expected ',' or ']'": 'a "," or "]" is missing',
        "expected ',' or '}'": 'a "," or "}" is missing',
        "could not find expected ':'": 'a ":" is missing after the key',
        "cannot start any token": "a text that starts with this character needs quotes",
        "expected <block end>": "is indented differently from the lines above it",
        "sequence entries are not allowed": 'a "- " where no list can be; check the indentation',
    }
    for sign, hint in hints.items():
        if sign in why:
            return Problem(f"is not YAML: {hint}{since}", line, column)
    return Problem(f"is not YAML: {why[:200]}{since}", line, column)
