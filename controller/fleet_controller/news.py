"""News: what lasts is told when it begins and when it ends, not at every tick."""

from __future__ import annotations

from fleet_controller.journal import Journal


class News:
    """Conditions by a key of their own, and what was last said about each."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._said: dict[tuple[str, str | None, str | None], str] = {}

    def tell(
        self,
        now: float,
        kind: str,
        text: str,
        pool: str | None = None,
        over: str = "",
        host: str | None = None,
    ) -> None:
        """`text` is what holds now, "" for nothing; an event when that begins, changes, or is `over`."""
        before = self._said.get((kind, pool, host), "")
        if text == before:
            return
        if text or over:
            self._journal.record(now, kind, text or over, pool, host)
        self._said[kind, pool, host] = text
