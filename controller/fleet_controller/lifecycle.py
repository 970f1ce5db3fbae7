"""A host's life: its states, and which may follow which. The journal refuses every other move."""

from __future__ import annotations

from enum import StrEnum


class HostState(StrEnum):
    OFF = "off"
    BOOTING = "booting"
    REACHABLE = "reachable"
    INSTALLING = "installing"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"
    UNREACHABLE = "unreachable"


class Quarantine(StrEnum):
    """Why a host that failed is left alone for long."""

    FAILURES = "failures"  # it failed QUARANTINE_AFTER times in a row
    UNPROVEN = "unproven"  # something of its agent is still there, or somebody holds what it had


QUARANTINE_AFTER = 5

_S = HostState

STARTING_UP = frozenset({_S.BOOTING, _S.REACHABLE, _S.INSTALLING, _S.STARTING, _S.LOADING})
GOING_DOWN = frozenset({_S.DRAINING, _S.STOPPING})

# Every state may also become failed or unreachable: machines do that without asking.
NEXT: dict[HostState, frozenset[HostState]] = {
    _S.OFF: frozenset({_S.BOOTING}),
    _S.BOOTING: frozenset({_S.REACHABLE}),
    _S.REACHABLE: frozenset({_S.INSTALLING}),
    _S.INSTALLING: frozenset({_S.STARTING}),
    _S.STARTING: frozenset({_S.LOADING}),
    _S.LOADING: frozenset({_S.READY, _S.DRAINING}),
    _S.READY: frozenset({_S.DRAINING}),
    _S.DRAINING: frozenset({_S.STOPPING}),
    _S.STOPPING: frozenset({_S.OFF}),
    # retry, put away, or found to be well after all
    _S.FAILED: frozenset({_S.BOOTING, _S.DRAINING, _S.OFF}),
    _S.UNREACHABLE: frozenset({_S.READY, _S.LOADING, _S.BOOTING, _S.DRAINING, _S.OFF}),
}


class IllegalMove(Exception):
    """A host was to go from one state to another that does not follow it."""


def check_move(host: str, before: HostState, after: HostState) -> None:
    """Raises IllegalMove unless `after` may follow `before`; staying is always allowed."""
    if after in (before, _S.FAILED, _S.UNREACHABLE) or after in NEXT[before]:
        return
    # A start or a stop that is taken up again after a crash begins at its first state.
    if after is _S.BOOTING and before in STARTING_UP:
        return
    if after is _S.DRAINING and before in GOING_DOWN:
        return
    raise IllegalMove(f"{host}: {after} does not follow {before}")
