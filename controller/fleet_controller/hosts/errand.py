"""Sends the keeper (keeper/) to a host with one errand and understands its answer."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from fleet_controller.hosts.between import Between
from fleet_controller.hosts.command import Command
from fleet_controller.hosts.failure import HostFailure, brief, printable
from fleet_controller.hosts.parcel import parcel
from fleet_controller.hosts.transport import Hear, Result, Transport

# An answer of at most 1 MiB, behind as much noise; Output keeps the end of what was said.
_OUTPUT_LIMIT = 3 * 1024 * 1024


def run_errand(
    transport: Transport,
    host: str,
    python: str,
    errand: str,
    args: Mapping[str, Any],
    timeout_s: float | None = None,
    progress: Callable[[str], None] | None = None,
    streams: tuple[Hear, Hear] | None = None,
) -> dict[str, Any]:
    """The keeper's answer. `python` runs the keeper; secrets in `args` travel on its stdin only.

    `streams` hear the stdout and the stderr of what the errand runs for an operator, as they come.
    Raises HostFailure: what the keeper reports, or why it could not run.
    """
    nonce = f"@fleetctl-{secrets.token_hex(8)}@"
    text = json.dumps({**args, "nonce": nonce})
    stdin = f"{parcel(errand)}run({json.dumps(text)})\n".encode()
    command = Command((python, "-I", "-S", "-"), stdin, timeout_s=timeout_s, output_limit=_OUTPUT_LIMIT)
    if streams is None:
        result = transport.run(command, _Said(nonce.encode(), progress).hear)
    else:
        out, err = (Between(nonce.encode(), hear) for hear in streams)
        try:
            result = transport.run(command, out.add, err.add)
        finally:
            out.close()
            err.close()
    return _answer(host, python, nonce, result)


class _Said:
    """Hands the keeper's progress lines on while it works."""

    def __init__(self, nonce: bytes, progress: Callable[[str], None] | None) -> None:
        self._start = nonce + b" progress "
        self._progress = progress
        self._rest = b""

    def hear(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-65536:]
        for line in lines:
            if self._progress is not None and line.startswith(self._start):
                self._progress(printable(str(json.loads(line[len(self._start) :]))))


def _answer(host: str, python: str, nonce: str, result: Result) -> dict[str, Any]:
    for line in reversed(result.stdout.split(b"\n")):
        start, _, rest = line.partition(b" ")
        word, _, value = rest.partition(b" ")
        if start != nonce.encode():
            continue
        if word == b"answer":
            answer = json.loads(value)
            assert isinstance(answer, dict)
            return answer
        if word == b"trouble":
            kind, cause, next_step = json.loads(value)
            raise HostFailure(host, kind, printable(cause), printable(next_step))
    # No answer: the keeper did not run, or not to its end.
    if result.status in (126, 127):
        raise HostFailure(
            host,
            "python",
            f"{python} cannot be run on the host ({brief(result.stderr) or 'command not found'})",
            "Install it (Debian, Ubuntu: `apt-get install -y python3 python3-venv`; Fedora, RHEL:"
            " `dnf install -y python3`), or name another in install.python",
        )
    if b"SyntaxError" in result.stderr:
        raise HostFailure(
            host,
            "python",
            f"{python} on the host is older than Python 3.8",
            "Name a newer one in install.python, as /usr/bin/python3.11",
        )
    said = brief(result.stderr) or brief(result.stdout) or "nothing"
    if b"No space left" in result.stderr:
        raise HostFailure(
            host, "disk", f"the disk is full: {said}", "Free space on the host, then run the same again"
        )
    raise HostFailure(
        host,
        "command",
        f"{python} ended with status {result.status} and gave no answer; it said: {said}",
        "Log in with ssh and run it by hand to see why; a login script that starts another shell is a usual cause",
    )
