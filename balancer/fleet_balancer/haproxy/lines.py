"""HAProxy's log, one line a request: where it went, how it ended, how long it took. PURE.

Source: HAProxy configuration manual, 8.5 "Session state at disconnection", for the two letters.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

# Fields of a line, in HAProxy's log-format; microseconds since the request's head was read.
FORMAT = "%b %s %ST %ts %[date(0,us),sub(txn.t0)] %[var(txn.busy)] %[var(txn.own)]"
# What the access log wants besides. Only the last two may hold blanks; they are JSON strings.
ACCESS = ' %rc %B %ci %HM %[var(txn.key)] %HU "%[var(txn.id),json]" "%[var(txn.model),json]"'
NOBODY = "<NOSRV>"

# -1: there was no answer.
_NUMBER = re.compile(r"-?[0-9]{1,18}")

Ending = Literal["answered", "broken", "refused", "abandoned"]


@dataclass(frozen=True, slots=True)
class Line:
    """`pool` and `place` are HAProxy's names of backend and server; `place` None: no host had it.

    `busy`: answered 503 with Retry-After. `own_deadline`: the client set one. `rest`: what read_access() reads.
    """

    pool: str
    place: str | None
    status: int
    ending: Ending
    ms: float
    busy: bool = False
    own_deadline: bool = False
    rest: str | None = None


def read_line(text: str) -> Line | None:
    """A request's line; None for what HAProxy says besides, and for requests that never came to a pool."""
    fields = text.split(" ", 7)
    if len(fields) < 7 or not _NUMBER.fullmatch(fields[2]) or len(fields[3]) != 2:
        return None
    pool, place, status, state, us, busy, own = fields[:7]
    if not _NUMBER.fullmatch(us):
        return None
    nobody = place == NOBODY
    return Line(
        pool,
        None if nobody else place,
        int(status),
        _ending(state, nobody),
        max(0, int(us)) / 1000.0,
        busy == "1",
        own == "1",
        fields[7] if len(fields) > 7 else None,
    )


@dataclass(frozen=True, slots=True)
class Access:
    """What only the access log wants to know. `sent`: bytes of the reply."""

    retries: int
    sent: int
    client: str
    method: str
    key: str | None
    target: str
    request_id: str
    model: str | None


_ACCESS = re.compile(
    r'\+?(\d+) (\d+) (\S+) (\S+) (\S+) (\S+) ("(?:[^"\\]|\\.)*") ("(?:[^"\\]|\\.)*")', re.DOTALL
)


def read_access(rest: str) -> Access | None:
    """The second half of a line; None where it was cut off, as those of very long targets are."""
    found = _ACCESS.fullmatch(rest)
    if found is None:
        return None
    retries, sent, client, method, key, target, request_id, model = found.groups()
    try:
        names = json.loads(request_id), json.loads(model)
    except ValueError:
        return None
    return Access(
        int(retries),
        int(sent),
        client,
        method,
        None if key == "-" else key,
        target,
        names[0],
        None if names[1] in ("", "-") else names[1],
    )


def _ending(state: str, nobody: bool) -> Ending:
    """`state`: who ended it, and in which phase."""
    who, phase = state[0], state[1]
    if who == "-":
        return "answered"
    if who in "Cc":
        return "abandoned"
    if nobody:
        # Our own refusals are "local"; the queue's time-out is the server's. A client that left while it waited for a
        # host ends as "SC": HAProxy drops the wait, and then finds no host.
        return "abandoned" if state == "SC" else "refused"
    if phase in "QC" or who in "PLR":
        return "refused"
    return "broken"
