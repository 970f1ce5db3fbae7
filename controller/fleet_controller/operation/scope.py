"""Scope: which hosts the operator has asked for, and which keep the release that they run. PURE.

A bound like `--limit` would be worth nothing if the controller went on to the other hosts the moment the command was
over. So what an `up` or `down` left out stays left out until one comes that covers it:

- `up --limit` on a fleet that is down asks for these hosts alone; the others stay off.
- `up --limit` on a fleet that runs gives these hosts the new release; the others keep theirs.
- `down --limit` takes these hosts away; nothing starts them.
- An operation that stopped after too many failures leaves what it had not begun as it is.

`up` without a bound asks for all again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from fleet_controller.lifecycle import HostState
from fleet_controller.records import HostRecord


class Scope(BaseModel):
    """`only`: hosts that were asked for, None: all. `away` are not, though they may be among them.

    `kept` maps hosts to the release that they keep. `since` and `by`: the command that made it so.
    """

    model_config = ConfigDict(frozen=True)

    only: frozenset[str] | None = None
    away: frozenset[str] = frozenset()
    kept: Mapping[str, str] = {}
    since: float = 0.0
    by: str = ""

    def has(self, host: str) -> bool:
        """Whether it was asked for."""
        return host not in self.away and (self.only is None or host in self.only)

    @property
    def whole(self) -> bool:
        """Whether all hosts were asked for and none keeps an old release."""
        return self.only is None and not self.away and not self.kept

    def asked_for(self, hosts: frozenset[str], records: Mapping[str, HostRecord], running: bool) -> Scope:
        """After `up` for `hosts` alone; `running`: whether the fleet was up."""
        kept = {n: r.release for n, r in records.items() if r.release is not None and n not in hosts}
        if not running:
            return replace_model(self, only=hosts, away=frozenset(), kept=kept)
        only = None if self.only is None else self.only | hosts
        return replace_model(self, only=only, away=self.away - hosts, kept=kept)

    def without(self, hosts: Iterable[str]) -> Scope:
        """After `down` for `hosts` alone."""
        return replace_model(self, away=self.away | frozenset(hosts))

    def halted(self, left: Iterable[str], records: Mapping[str, HostRecord]) -> Scope:
        """After an `up` that stopped and had not come to `left`: they stay as they are."""
        known = {name: records[name] for name in left if name in records}
        off = {name for name, record in known.items() if record.state is HostState.OFF}
        kept = {n: r.release for n, r in known.items() if n not in off and r.release is not None}
        return replace_model(self, away=self.away | off, kept={**self.kept, **kept})

    def seen(self, records: Mapping[str, HostRecord], wanted: Mapping[str, str]) -> dict[str, HostRecord]:
        """The records as plan is to see them: who was not asked for is out, a release that is kept is right.

        `wanted`: the release that each host should run.
        """
        if self.whole:
            return dict(records)
        return {name: self._seen(record, wanted.get(name)) for name, record in records.items()}

    def _seen(self, record: HostRecord, wanted: str | None) -> HostRecord:
        if not self.has(record.name):
            return replace(record, cordoned=True)
        if wanted is not None and record.release is not None and self.kept.get(record.name) == record.release:
            return replace(record, release=wanted)
        return record

    def why(self, host: str) -> str:
        """Why the host is left alone, for people; "": it is not."""
        if not self.has(host):
            return "not asked for by the last `fleetctl up` or `down`; `fleetctl up` takes it in"
        return ""


def replace_model(scope: Scope, **changes: object) -> Scope:
    """A copy with `changes`, checked."""
    return Scope.model_validate({**dict(scope), **changes})
