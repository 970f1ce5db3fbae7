"""The host's clock beside ours. PURE."""

from __future__ import annotations

from collections.abc import Iterator

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.finding import Finding, unknown, warning, well

MOST_S = 1.0
FAR_S = 60.0
SET = "on the host: sudo timedatectl set-ntp true (or: sudo apt-get install -y chrony)"


def judge(chart: Chart) -> Iterator[Finding]:
    synchronized = chart.facts.of("clock").value.get("synchronized")
    if chart.clock is None:
        yield unknown("clock", "what its clock says is unknown")
        return
    ahead, error = chart.clock.ahead_s, chart.clock.error_s
    # What the way there and back may have cost is not the clock's fault.
    certain = max(0.0, abs(ahead) - error)
    side = "ahead of" if ahead > 0 else "behind"
    if certain > MOST_S and not chart.spec.is_local:
        yield warning(
            "clock",
            f"its clock is {certain:.1f} s {side} this machine's",
            "ages of metrics, certificates and logs are wrong by as much"
            + ("; certificates may count as expired or not valid yet" if certain > FAR_S else ""),
            SET,
        )
    elif synchronized is False and not chart.spec.is_local:
        yield warning(
            "clock",
            f"nothing keeps its clock right (it is within {abs(ahead) + error:.1f} s of ours now)",
            "it will drift away",
            SET,
        )
    else:
        yield well("clock", f"its clock is within {abs(ahead) + error:.2f} s of ours")
