"""The password that sudo asks for on the hosts. It is in the memory of one process and nowhere else."""

from __future__ import annotations


class SudoPassword:
    """Holds it, or None while nobody has given it. May be given while machines are at work; safe for threads."""

    def __init__(self, value: str | None = None) -> None:
        self._value = value

    def __repr__(self) -> str:
        return f"<SudoPassword {'unknown' if self._value is None else 'given'}>"

    @property
    def value(self) -> str | None:
        return self._value

    def give(self, value: str) -> None:
        self._value = value
