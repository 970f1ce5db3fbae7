"""What is wrong on the operator's own machine. PURE."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterable, Iterator

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.finding import (
    Finding,
    problem,
    skipped,
    unknown,
    warning,
    well,
    worst_first,
)
from fleet_controller.hosts.doctor.surroundings import Kept, Surroundings

STATE_NEEDED = 200 << 20
STATE_WANTED = 2 << 30
SKEW_S = 1.0


def judge(seen: Surroundings, charts: Iterable[Chart] = ()) -> list[Finding]:
    """The worst first. `charts`: if most hosts disagree with our clock, it is ours that is wrong."""
    charts = list(charts)
    reached = frozenset(chart.name for chart in charts if chart.reached)
    found = [
        *_fleet_file(seen.fleet_file),
        *_secrets(seen),
        *_known_hosts(seen, reached),
        *_agent(seen),
        *_state(seen),
        *_programs(seen),
        *_ports(seen),
        *_clock(seen, charts),
    ]
    return worst_first(found)


def _fleet_file(file: Kept) -> Iterator[Finding]:
    if file.mode is not None and file.mode & 0o022:
        why = "who may write it decides which commands run on every host"
        yield warning(
            "fleet-file", f"others may write {file.path}", why, f"chmod go-w {shlex.quote(file.path)}"
        )
    else:
        yield well("fleet-file", f"{file.path} is good")


def _secrets(seen: Surroundings) -> Iterator[Finding]:
    for file in seen.secrets:
        quoted = shlex.quote(file.path)
        if file.trouble:
            fix = f"ls -l {quoted}; correct it, or name another"
            yield problem(
                "keys",
                f"{file.purpose} {file.path}: {file.trouble}",
                "hosts that use it are not reached",
                fix,
            )
        elif file.mode is not None and file.mode & 0o077:
            why = "others on this machine can read it and log in to your hosts"
            what = f"{file.purpose} {file.path} may be read by others (mode {file.mode:04o})"
            mend = "key-mode" if file.ours else None
            yield problem("keys", what, why, f"chmod 600 {quoted}", mend)
    if seen.secrets and not any(file.trouble or (file.mode or 0) & 0o077 for file in seen.secrets):
        yield well("keys", f"{len(seen.secrets)} key and password files are there, readable by you alone")


def _known_hosts(seen: Surroundings, reached: frozenset[str]) -> Iterator[Finding]:
    for file in seen.known_hosts:
        # One that was reached is known in another way: another file of ~/.ssh/config, a certificate.
        unknown_here = [name for name in seen.unknown_hosts.get(file.path, ()) if name not in reached]
        if file.trouble:
            why = "no host key can be verified, so no host is used"
            yield problem(
                "known-hosts", f"{file.path}: {file.trouble}", why, f"ls -l {shlex.quote(file.path)}"
            )
        elif file.mode is not None and file.mode & 0o022:
            why = "who may write it decides which machines are taken for yours"
            yield problem(
                "known-hosts", f"others may write {file.path}", why, f"chmod 644 {shlex.quote(file.path)}"
            )
        elif unknown_here:
            names = ", ".join(unknown_here[:5]) + (
                f" and {len(unknown_here) - 5} more" if len(unknown_here) > 5 else ""
            )
            why = "nothing is sent to a host whose key is not known"
            fix = "fleetctl doctor --fix --trust-on-first-use (compare the fingerprints that it shows), or ssh-keyscan"
            yield warning("known-hosts", f"{file.path} has no key of {names}", why, fix)
        else:
            yield well("known-hosts", f"{file.path} has the keys of all hosts that use it")


def _agent(seen: Surroundings) -> Iterator[Finding]:
    if not seen.needs_agent:
        yield skipped("ssh-agent", "every host names its key file")
    elif seen.agent_keys:
        yield well("ssh-agent", f"the SSH agent holds {seen.agent_keys} key(s)")
    elif seen.usual_keys:
        yield well(
            "ssh-agent",
            f"no SSH agent ({seen.agent_trouble or 'it holds no key'}); {', '.join(seen.usual_keys)}",
        )
    else:
        count = len(seen.needs_agent)
        yield warning(
            "ssh-agent",
            f"no key to log in with: {seen.agent_trouble or 'the SSH agent holds none'}, and ~/.ssh has none",
            f"{count} host(s) name no ssh.identity_file, {seen.needs_agent[0]} for one",
            'eval "$(ssh-agent)" && ssh-add, or set ssh.identity_file',
        )


def _state(seen: Surroundings) -> Iterator[Finding]:
    state = seen.state
    if state is not None and state.trouble:
        yield problem(
            "state", f"{state.path}: {state.trouble}", "nothing can be noted down", "Set controller.state"
        )
        return
    if state is not None and state.mode is not None and state.mode & 0o077:
        why = "tokens lie in it that let one drain and reload every agent"
        what = f"others may look into {state.path} (mode {state.mode:04o})"
        yield problem(
            "state", what, why, f"chmod 700 {shlex.quote(state.path)}", "state-mode" if state.ours else None
        )
    if seen.journal_trouble:
        why = "the controller can't act on any host without it"
        yield problem("state", seen.journal_trouble, why, "fleetctl state check; fleetctl state rebuild")
    fix = f"df -h {shlex.quote(seen.state_there)}; free space, or set controller.state to a bigger disk"
    if seen.state_free is None:
        yield unknown("state", f"how much room {seen.state_there} has is unknown")
    elif seen.state_free < STATE_NEEDED:
        why = "without room for its journal the controller acts on no host"
        yield problem("state", f"{seen.state_free / 1e6:.0f} MB free in {seen.state_there}", why, fix)
    elif seen.state_free < STATE_WANTED:
        why = "releases are packed here before they are sent"
        yield warning("state", f"{seen.state_free / 1e6:.0f} MB free in {seen.state_there}", why, fix)
    else:
        yield well("state", f"{seen.state_free / 1e9:.0f} GB free in {seen.state_there}")


def _programs(seen: Surroundings) -> Iterator[Finding]:
    for program in seen.programs:
        if program.there:
            yield well(
                "programs", f"{program.name} is installed, for the power of {len(program.hosts)} host(s)"
            )
        else:
            names = ", ".join(program.hosts[:5])
            why = f"it switches {names}"
            yield problem("programs", f"{program.name} is not installed here", why, program.package)


def _ports(seen: Surroundings) -> Iterator[Finding]:
    for port in seen.ports:
        if port.ours:
            yield well("ports", f"{port.key} {port.address}: our balancer listens there")
        elif port.holder:
            number = port.address.rpartition(":")[2]
            fix = f"ss -ltnp 'sport = :{number}'; end that process, or set another balancer.{port.key}"
            yield problem(
                "ports", f"{port.key} {port.address}: {port.holder}", "the balancer can't start", fix
            )
        else:
            yield well("ports", f"{port.key} {port.address} is free for the balancer")


def _clock(seen: Surroundings, charts: list[Chart]) -> Iterator[Finding]:
    apart = [chart.clock.ahead_s for chart in charts if chart.clock is not None and not chart.spec.is_local]
    fix = "sudo timedatectl set-ntp true (or: sudo apt-get install -y chrony)"
    middle = statistics.median(apart) if len(apart) >= 3 else 0.0
    if abs(middle) > SKEW_S:
        side = "behind" if middle > 0 else "ahead of"
        what = f"this machine's clock is {abs(middle):.1f} s {side} that of most hosts"
        yield warning(
            "clock", what, "it is this one that is wrong, not theirs: schedules run at the wrong time", fix
        )
    elif seen.synchronized is False:
        yield warning(
            "clock", "nothing keeps this machine's clock right", "it will drift; schedules go by it", fix
        )
    elif seen.synchronized is None:
        yield unknown("clock", "whether something keeps this machine's clock right is unknown")
    else:
        yield well("clock", "this machine's clock is kept right")
