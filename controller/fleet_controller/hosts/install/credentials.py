"""Users and passwords in the addresses of fleet.yaml: where they stand, and an address without them. PURE.

They open a door and say nothing of what is behind it: wheels that came from an index by another password are the same
wheels, so no name of theirs depends on it, and a site that has them needs none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from fleet_controller.spec import FleetSpec

# RFC 3986, 3.2.1: what stands before the last @ of an authority.
_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#\"'\\]*@")


def bare(words: Iterable[str]) -> tuple[str, ...]:
    """The words, without users and passwords in their addresses."""
    return tuple(_USERINFO.sub(r"\1", word) for word in words)


def left_out(text: str, spec: FleetSpec) -> tuple[str, list[str]]:
    """fleet.yaml's `text` without the users and passwords that a site has no use for, and the keys they stood at.

    Raises ValueError with the key of one that is written so that it is not found: in two lines, or with escapes.
    """
    keys: list[str] = []
    for key, value in _addresses(spec):
        for found in _USERINFO.finditer(value):
            if found[0] not in text and key not in keys:
                raise ValueError(key)
            text = text.replace(found[0], found[1])
            keys.append(key)
    return text, list(dict.fromkeys(keys))


def _addresses(spec: FleetSpec) -> Iterator[tuple[str, str]]:
    """Those that are no part of what hosts are given: (key, value)."""
    for host in spec.hosts:
        for word in host.install.pip_args:
            yield "install.pip_args", word
    for model in spec.models:
        for pin in model.weights:
            if pin.origin is not None and "://" in pin.origin:
                yield f"the weights of {model.name}", pin.origin
    yield "controller.state", spec.controller.state
