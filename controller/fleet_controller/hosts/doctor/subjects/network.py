"""The agent's port, the firewall before it, and how good the line is. PURE."""

from __future__ import annotations

from collections.abc import Iterator

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.finding import Finding, problem, skipped, unknown, warning, well

SLOW_BYTES_PER_S = 5e6
FAR_S = 0.15


def judge(chart: Chart) -> Iterator[Finding]:
    yield from _port(chart)
    yield from _door(chart)
    yield from _line(chart)


def _port(chart: Chart) -> Iterator[Finding]:
    fact = chart.facts.of("port")
    port = fact.number("port")
    if fact.missing:
        yield unknown("port", f"who has the agent's port is unknown: {fact.missing}")
    elif not port:
        yield skipped("port", "agent.port is 0: the system picks a free one at each start")
    elif fact.yes("ours"):
        yield well("port", f"our agent listens on port {port:.0f}")
    elif fact.yes("taken"):
        holder = fact.text("holder") or "somebody else"
        yield problem(
            "port",
            f"port {port:.0f}, which the agent is to use, is taken by {holder}",
            "the agent can't start",
            f"on the host: sudo ss -ltnp 'sport = :{port:.0f}'; end that process, or set another agent.port",
        )
    else:
        yield well("port", f"port {port:.0f} is free for the agent")


def _door(chart: Chart) -> Iterator[Finding]:
    door = chart.door
    if door.answered_s is not None:
        yield well(
            "door",
            f"port {door.port} is reached from here; {door.asked} answered in {1000 * door.answered_s:.1f} ms",
        )
    elif door.trouble:
        yield problem(
            "door",
            f"port {door.port} is not reached from this machine: {door.trouble}",
            "the balancer, which runs here, can't send it requests",
            f"Open it in the host's firewall (sudo ufw allow {door.port}/tcp; sudo firewall-cmd --permanent"
            f" --add-port={door.port}/tcp && sudo firewall-cmd --reload) and in the"
            " cloud's security group, or check agent.listen",
        )
    elif door.deaf:
        yield problem(
            "door",
            f"nothing can listen on port {door.port} of {door.deaf}",
            "the agent can't start: behind NAT a machine does not have the address that others know it by",
            'Set agent.listen to "0.0.0.0" or to an address of the machine itself',
        )
    else:
        yield skipped("door", door.skipped or "not tried")


def _line(chart: Chart) -> Iterator[Finding]:
    if chart.spec.is_local:
        return
    line = chart.line
    if line.trouble or line.round_trip_s is None or line.seconds <= 0:
        yield unknown("network", f"how good the line is, is unknown: {line.trouble or 'it was not measured'}")
        return
    speed = line.received / line.seconds
    told = (
        f"a command takes {1000 * line.round_trip_s:.0f} ms, {speed / 1e6:.1f} MB/s come from there over SSH"
    )
    if speed < SLOW_BYTES_PER_S:
        why = f"a release of 1 GB takes {1e9 / max(speed, 1):.0f} s, and large requests and answers wait for the line"
        yield warning("network", told, why, "Check the network between (duplex, MTU, VPN, a jump host)")
    elif line.round_trip_s > FAR_S:
        why = "each request waits for the way there and back"
        yield warning("network", told, why, "Run the balancer nearer to the hosts")
    else:
        yield well("network", told)
