"""Numbers as a reason says them."""

from __future__ import annotations


def ms(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"


def span(seconds: float) -> str:
    """10 s, 12 min, 3.5 h."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def lasting(seconds: float) -> str:
    """' for 10 s', or nothing for what has only just begun."""
    return f" for {span(seconds)}" if seconds >= 0.5 else ""


def servers(count: int) -> str:
    return "1 server" if count == 1 else f"{count} servers"


def enough(count: int) -> str:
    return f"{servers(count)} {'is' if count == 1 else 'are'} enough"


def number(value: float) -> str:
    """Three significant digits without an exponent: 12.3, 1234, 0.05."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
