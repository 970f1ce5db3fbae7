"""Events as lines for people."""

from __future__ import annotations

from typing import Protocol

from fleetctl.render.text import clock, line


class Told(Protocol):
    """What is shown of a journal event."""

    @property
    def at(self) -> float: ...
    @property
    def kind(self) -> str: ...
    @property
    def pool(self) -> str | None: ...
    @property
    def host(self) -> str | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def data(self) -> dict[str, object]: ...


def change_line(event: Told) -> str:
    """`gpu-a        starting     desired 1 (min_servers)`."""
    who = line(event.host or event.pool or "fleet")
    return f"{who:<12} {line(event.kind):<12} {line(event.reason)}".rstrip()


def event_line(event: Told) -> str:
    """The same with its time in front and its error behind."""
    text = f"{clock(event.at)}  {change_line(event)}"
    error = line(event.data.get("error"))
    return f"{text}: {error}" if error else text
