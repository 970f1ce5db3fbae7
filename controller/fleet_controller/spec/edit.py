"""Changing values of a YAML file and nothing else in it: its comments, its order and its way of writing stay.

Works on the text, by the positions that the parser gives. What is written through an anchor or a merge key changes in
more than one place: whoever edits compares what the new text means with what it should mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from fleet_controller.spec.problem import Steps


def edited(text: str, steps: Steps, value: str) -> str:
    """`text` with `value` (as YAML) at `steps`; mappings that are missing on the way are made.

    Raises LookupError where the way leads through something that is no mapping and no item of a list.
    """
    node: Any = YAML(pure=True).compose(text)
    for number, step in enumerate(steps):
        if isinstance(step, int):
            if not isinstance(node, SequenceNode) or step >= len(node.value):
                raise LookupError(steps)
            node = node.value[step]
            continue
        if isinstance(node, ScalarNode) and not node.value:  # "scaling:" with nothing after it
            return _put(text, node, _nested(steps[number:], value))
        if not isinstance(node, MappingNode):
            raise LookupError(steps)
        child = next((v for k, v in node.value if k.value == step), None)
        if child is None:
            return _insert(text, node, f"{step}: {_nested(steps[number + 1 :], value)}")
        node = child
    if not isinstance(node, ScalarNode):
        raise LookupError(steps)
    return _put(text, node, value)


def _nested(steps: Sequence[str | int], value: str) -> str:
    return value if not steps else "{" + f"{steps[0]}: {_nested(steps[1:], value)}" + "}"


def _put(text: str, node: Any, value: str) -> str:
    start, end = node.start_mark.index, node.end_mark.index
    if start == end:  # an empty value has no place of its own: behind its colon
        start = end = text.rfind(":", 0, start) + 1
        value = f" {value}"
    return text[:start] + value + text[end:]


def _insert(text: str, node: Any, entry: str) -> str:
    if node.flow_style:
        end = _end(node.value[-1][1]) if node.value else node.start_mark.index + 1
        return f"{text[:end]}{', ' if node.value else ''}{entry}{text[end:]}"
    line_end = text.find("\n", max(0, _end(node) - 1))
    end = len(text) if line_end < 0 else line_end + 1
    newline = "\r\n" if "\r\n" in text else "\n"
    before = "" if text[end - 1] == "\n" else newline
    return f"{text[:end]}{before}{' ' * node.value[0][0].start_mark.column}{entry}{newline}{text[end:]}"


def _end(node: Any) -> int:
    """Where a node's text ends: a block's is that of the last thing in it (its own mark lies behind what follows)."""
    if isinstance(node, MappingNode) and not node.flow_style and node.value:
        key, value = node.value[-1]
        empty = value.start_mark.index == value.end_mark.index
        return int(key.end_mark.index) + 1 if empty else _end(value)
    if isinstance(node, SequenceNode) and not node.flow_style and node.value:
        return _end(node.value[-1])
    return int(node.end_mark.index)
