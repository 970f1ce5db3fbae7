"""The secrets of this fleet that are known by value: tokens, passwords, what stands in fleet.yaml under a telling name.

Nothing here fails: what can't be read is no secret that a bundle could hold, and what looks like one is found anyhow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fleet_controller.spec import FleetSpec

# Names of variables and options whose values are secrets.
TELLING = re.compile(r"(?i)pass|secret|token|credential|api_?key|private_?key|access_?key|auth|pwd")
# A word before a secret in a command: -P of ipmitool, --password of anything.
_BEFORE = re.compile(r"(?i)-P|--?(?:pass(?:word|wd|phrase)?|token|secret|api-?key)")
_JOINED = re.compile(r"(?i)--?(?:pass(?:word|wd|phrase)?|token|secret|api-?key)=(.+)")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_MOST = 64 * 1024


def known_secrets(folder: Path, spec: FleetSpec | None, environment: Mapping[str, str]) -> set[str]:
    """Of the state folder, of fleet.yaml and the files that it names, and of this process's environment."""
    found = {_read(path) for path in (folder / "tokens").glob("*")}
    found.update(value for name, value in environment.items() if TELLING.search(name) and _secret_like(value))
    if spec is not None:
        for host in spec.hosts:
            if host.power.password_file is not None:
                found.add(_read(host.power.password_file).partition("\n")[0])
            if host.power.password_env is not None:
                found.add(environment.get(host.power.password_env, ""))
        found.update(_in(spec.model_dump(mode="json")))
    return {secret for secret in found if secret.strip()}


def _in(value: Any, name: str = "") -> Iterator[str]:
    """What stands under a telling name, behind a telling option, or in a URL between its user and its host."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _in(inner, str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        words = [str(word) for word in value if isinstance(word, str)]
        yield from (after for word, after in pairwise(words) if _BEFORE.fullmatch(word))
        for inner in value:
            yield from _in(inner, name)
    elif isinstance(value, str):
        if (
            TELLING.search(name)
            and not re.search(r"(?i)(?:file|env|path|require\w*|keys)\Z", name)
            and _secret_like(value)
        ):
            yield value
        joined = _JOINED.match(value)
        if joined:
            yield joined[1]
        for url in _URL.findall(value):
            yield from _userinfo(url)


def _userinfo(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        secret = parts.password or (parts.username if parts.scheme in ("http", "https") else None)
    except ValueError:
        return
    if secret:
        yield secret
        yield unquote(secret)


def _secret_like(value: str) -> bool:
    """Not a switch, a small number, a path that is said to be one."""
    return (
        len(value) >= 4
        and value.lower() not in ("true", "false", "none", "null", "required")
        and value[0] not in "/~"
    )


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MOST).strip()
    except OSError:
        return ""
