"""Looks at the operator's own machine: files, keys, disk, programs, ports. Changes nothing."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import socket
import stat
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from fleet_controller.hosts.doctor.surroundings import Kept, Port, Program, Surroundings
from fleet_controller.hosts.failure import brief
from fleet_controller.hosts.keeper.facts.clock import synchronized
from fleet_controller.hosts.ssh.known_hosts import KnownHosts, name_of
from fleet_controller.spec import FleetSpec, HostSpec

AGENT_S = 3.0
USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
PACKAGES = {
    "virsh": "sudo apt-get install -y libvirt-clients",
    "ipmitool": "sudo apt-get install -y ipmitool",
    "sushy": "pip install 'fleetctl[power]'",
    "haproxy": "sudo apt-get install -y haproxy",
}


def look(spec: FleetSpec, names: Iterable[str], state: Path, balancer_runs: bool) -> Surroundings:
    """What there is on this machine for those hosts; `state` is the state folder."""
    hosts = [spec.host(name) for name in names]
    remote = [host for host in hosts if not host.is_local]
    there = state
    while not there.exists():
        there = there.parent
    agent_keys, agent_trouble = _agent() if remote else (None, "")
    return Surroundings(
        fleet_file=_kept(spec.source, "fleet.yaml"),
        secrets=tuple(_secrets(hosts)),
        known_hosts=tuple(_kept(path, "known_hosts") for path in _by_known_hosts(remote)),
        unknown_hosts={str(path): _strangers(path, users) for path, users in _by_known_hosts(remote).items()},
        agent_keys=agent_keys,
        agent_trouble=agent_trouble,
        needs_agent=tuple(host.name for host in remote if host.ssh.identity_file is None),
        usual_keys=tuple(name for name in USUAL_KEYS if (Path.home() / ".ssh" / name).exists()),
        synchronized=synchronized(),
        state=_kept(state, "the state folder") if state.exists() else None,
        state_there=str(there),
        state_free=_free(there),
        programs=tuple(_programs(spec, hosts)),
        ports=tuple(_ports(spec, balancer_runs)),
    )


def _kept(path: Path, purpose: str) -> Kept:
    try:
        info = path.stat()
    except FileNotFoundError:
        return Kept(str(path), purpose, trouble="" if purpose == "known_hosts" else "it does not exist")
    except OSError as error:
        return Kept(str(path), purpose, trouble=str(error.strerror))
    readable = "" if os.access(path, os.R_OK) else "this user may not read it"
    return Kept(str(path), purpose, stat.S_IMODE(info.st_mode), info.st_uid == os.geteuid(), readable)


def _secrets(hosts: list[HostSpec]) -> Iterable[Kept]:
    keys = {
        host.ssh.identity_file for host in hosts if not host.is_local and host.ssh.identity_file is not None
    }
    words = {host.power.password_file for host in hosts if host.power.password_file is not None}
    yield from (_kept(path, "the SSH key") for path in sorted(keys))
    yield from (_kept(path, "the password file") for path in sorted(words))


def _by_known_hosts(hosts: list[HostSpec]) -> dict[Path, list[HostSpec]]:
    found: dict[Path, list[HostSpec]] = defaultdict(list)
    for host in hosts:
        found[host.ssh.known_hosts].append(host)
    return dict(sorted(found.items()))


def _strangers(path: Path, hosts: list[HostSpec]) -> tuple[str, ...]:
    try:
        known = KnownHosts.read(path)
    except OSError:
        return ()  # said of the file itself
    return tuple(host.name for host in hosts if not known.of(name_of(host.address, host.ssh.port)))


def _agent() -> tuple[int | None, str]:
    """How many keys the SSH agent holds; None and why where there is none."""
    if not os.environ.get("SSH_AUTH_SOCK"):
        return None, "SSH_AUTH_SOCK is not set, so there is no SSH agent"
    program = shutil.which("ssh-add")
    if program is None:
        return None, "ssh-add is not installed, so the SSH agent can't be asked"
    try:
        # Not all of our environment: passwords of BMCs stand there.
        env = {name: os.environ[name] for name in ("HOME", "PATH", "SSH_AUTH_SOCK") if name in os.environ}
        done = subprocess.run(
            [program, "-l"], stdin=subprocess.DEVNULL, capture_output=True, timeout=AGENT_S, env=env
        )
    except subprocess.TimeoutExpired:
        return None, f"the SSH agent does not answer within {AGENT_S:g} s"
    if done.returncode == 0:
        return len(done.stdout.splitlines()), ""
    return (0, "") if done.returncode == 1 else (None, brief(done.stderr) or "the SSH agent does not answer")


def _free(path: Path) -> int | None:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def _programs(spec: FleetSpec, hosts: list[HostSpec]) -> Iterable[Program]:
    needed: dict[str, list[str]] = defaultdict(list)
    tools = {"libvirt": "virsh", "ipmi": "ipmitool"}
    for host in hosts:
        if host.power.driver in tools and host.power.via is None:
            needed[tools[host.power.driver]].append(host.name)
        if host.power.driver == "redfish":
            needed["sushy"].append(host.name)
    if spec.balancer.engine == "haproxy":
        needed["haproxy"].append("the balancer")
    for name, users in sorted(needed.items()):
        there = importlib.util.find_spec(name) if name == "sushy" else shutil.which(name)
        yield Program(name, PACKAGES[name], tuple(users), there is not None)


def _ports(spec: FleetSpec, balancer_runs: bool) -> Iterable[Port]:
    for key, end in (("listen", spec.balancer.listen_endpoint), ("admin", spec.balancer.admin_endpoint)):
        address = f"{end.host}:{end.port}"
        yield (
            Port(address, key, ours=True) if balancer_runs else Port(address, key, _taken(end.host, end.port))
        )


def _taken(host: str, port: int) -> str:
    """Why a server could not listen there; "" where it could."""
    try:
        family, kind, number, _, place = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "another program listens there"
        return str(error.strerror or error)
    return ""
