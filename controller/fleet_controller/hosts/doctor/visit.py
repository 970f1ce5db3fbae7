"""A visit to one host: reaches it, asks it, measures the line. Every step has a time limit of its own."""

from __future__ import annotations

import getpass
import secrets
import socket
import time

import urllib3

from fleet_controller.hosts.command import Command
from fleet_controller.hosts.doctor.chart import Chart, Clock, Door, Line
from fleet_controller.hosts.doctor.facts import Facts
from fleet_controller.hosts.failure import HostFailure, brief
from fleet_controller.hosts.machine import Machine
from fleet_controller.records import HostRecord

# The slowest fact, importing torch, has 60 s.
EXAMINE_S = 75.0
ROUND_TRIPS = 3
STREAM_BYTES = 4 << 20
STREAM_S = 2.0
KNOCK_S = 4.0
# A look at the clock that took no more than twice this is exact enough.
QUICK_S = 0.2
CONNECT_S = 2.0
ANSWER_S = 3.0


class _Enough(Exception):
    """The measurement has what it needs; what is still to come is not waited for."""


def visit(machine: Machine, record: HostRecord | None, now: float) -> Chart:
    """Look at one host. Never raises HostFailure: what went wrong is in the chart."""
    spec = machine.spec
    user = "" if spec.is_local else spec.ssh.user or getpass.getuser()
    try:
        connected_s, round_trip_s = _reach(machine)
    except HostFailure as failure:
        power = machine.power_status()
        return Chart(spec, failure, power=power, record=record, user=user, now=now)
    failed: HostFailure | None = None
    facts = Facts({})
    try:
        facts = Facts(machine.examine(EXAMINE_S))
    except HostFailure as failure:
        failed = failure
    return Chart(
        spec,
        failed,
        connected_s=connected_s,
        facts=facts,
        clock=None if failed is not None else _clock(machine),
        line=Line() if spec.is_local else _line(machine, round_trip_s),
        files="" if spec.is_local else _files(machine),
        door=_door(machine, facts),
        power=machine.power_status(),
        record=record,
        user=user,
        now=now,
    )


def _reach(machine: Machine) -> tuple[float, float]:
    """Seconds until the first command was done, and for one on the connection that is there then."""
    took = []
    for _ in range(1 + ROUND_TRIPS):
        began = time.monotonic()
        machine.transport.run(Command(("true",)))
        took.append(time.monotonic() - began)
    return took[0], min(took[1:])


def _clock(machine: Machine) -> Clock | None:
    """The better of two looks, or one that was quick."""
    best: Clock | None = None
    for _ in range(2):
        before = time.time()
        began = time.monotonic()
        try:
            there = machine.moment()
        except HostFailure:
            return best
        took = time.monotonic() - began
        seen = Clock(there - (before + took / 2), took / 2)
        if best is None or seen.error_s < best.error_s:
            best = seen
        if best.error_s < QUICK_S:
            break
    return best


def _line(machine: Machine, round_trip_s: float) -> Line:
    """Bytes from the host, for STREAM_S at most."""
    received = 0
    began = ended = 0.0

    def hear(data: bytes) -> None:
        nonlocal received, began, ended
        ended = time.monotonic()
        # The first piece says when it began to flow: what came before is the start of the program.
        if not began:
            began = ended
        else:
            received += len(data)
        if ended - began > STREAM_S:
            raise _Enough

    command = Command(
        ("head", "-c", str(STREAM_BYTES), "/dev/zero"), timeout_s=4 * STREAM_S, output_limit=1024
    )
    try:
        machine.transport.run(command, hear)
    except _Enough:
        pass
    except HostFailure as failure:
        if not received:
            return Line(round_trip_s, trouble=failure.cause)
    return Line(round_trip_s, received, max(ended - began, 1e-6) if received else 0.0)


def _files(machine: Machine) -> HostFailure | str:
    path = f"/tmp/.fleetctl-doctor-{secrets.token_hex(6)}"
    try:
        machine.transport.put(b"fleetctl doctor\n", path, 0o600)
        machine.transport.run(Command(("rm", "-f", "--", path)))
    except HostFailure as failure:
        return failure
    return ""


def _door(machine: Machine, facts: Facts) -> Door:
    fact = facts.of("port")
    port = int(fact.number("port") or 0)
    if fact.missing:
        return Door(skipped="who has the agent's port is unknown")
    if not port:
        return Door(skipped="agent.port is 0, so there is no port to try while no agent runs")
    if fact.yes("ours"):
        return _ask_agent(machine, port)
    if fact.yes("taken"):
        return Door(port, skipped="its port is taken")
    if machine.spec.is_local:
        return Door(port, skipped="this machine: no firewall is between")
    return _knock(machine, port)


def _ask_agent(machine: Machine, port: int) -> Door:
    url = f"{machine.agent_url(port)}/healthz"
    timeout = urllib3.Timeout(connect=CONNECT_S, read=ANSWER_S)
    began = time.monotonic()
    with urllib3.PoolManager(retries=False) as pool:
        try:
            answer = pool.request("GET", url, timeout=timeout, redirect=False, preload_content=False)
            answer.read(4096)
            answer.close()
        except urllib3.exceptions.HTTPError as error:
            return Door(port, trouble=brief(str(error).rpartition("): ")[2] or type(error).__name__, 200))
    if answer.status != 200:
        return Door(port, trouble=f"the agent answers {answer.status} to /healthz")
    return Door(port, "the agent", time.monotonic() - began)


def _knock(machine: Machine, port: int) -> Door:
    """The host listens on the port for a moment, and we connect."""
    word = secrets.token_hex(8)
    seen: list[Door] = []
    try:
        heard, deaf = machine.knock(word, KNOCK_S, lambda: seen.append(_connect(machine, port, word)))
    except HostFailure as failure:
        return Door(port, skipped=f"not tried: {failure.cause}")
    if deaf:
        return Door(port, deaf=f"{machine.spec.bind_address}: {brief(deaf, 200)}")
    door = seen[0] if seen else Door(port, skipped="not tried: the host did not listen")
    if door.answered_s is not None and not heard:
        return Door(port, trouble="another machine answers there")
    return door


def _connect(machine: Machine, port: int, word: str) -> Door:
    host = machine.agent_url(port).removeprefix("http://").rpartition(":")[0].strip("[]")
    began = time.monotonic()
    try:
        with socket.create_connection((host, port), CONNECT_S) as stream:
            stream.settimeout(CONNECT_S)
            stream.sendall(word.encode())
            if stream.recv(256) != word.encode():
                return Door(port, trouble="another machine answers there")
    except TimeoutError:
        return Door(
            port, trouble=f"no answer within {CONNECT_S:g} s, as when a firewall drops what is sent there"
        )
    except OSError as error:
        return Door(port, trouble=brief(error.strerror or str(error)))
    return Door(port, "the host", time.monotonic() - began)
