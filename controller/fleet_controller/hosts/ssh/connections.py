"""The SSH connections of a fleet: one per server, shared by those who go there and those who go through."""

from __future__ import annotations

import getpass
import os
import threading
from pathlib import Path

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.inheritance import passwords
from fleet_controller.hosts.ssh.client_config import ClientConfig, Words
from fleet_controller.hosts.ssh.connection import SshConnection
from fleet_controller.hosts.ssh.gate import Gate
from fleet_controller.hosts.ssh.server import KeyChoice, Server
from fleet_controller.spec import FleetSpec, SshSpec

MAX_JUMPS = 8


class Connections:
    """Makes each connection once. What fleet.yaml says goes before ~/.ssh/config, and that before our defaults."""

    def __init__(self, spec: FleetSpec) -> None:
        self._spec = spec
        self._lock = threading.RLock()
        self._gate = Gate()
        self._made: dict[object, SshConnection] = {}
        self._configs: dict[Path, ClientConfig] = {}
        self._withheld = passwords(spec)

    def to_host(self, name: str) -> SshConnection:
        """The connection to a host of the inventory.

        Raises HostFailure (kind "config") for jumps in a circle, and for an ~/.ssh/config that is broken.
        """
        with self._lock:
            return self._to_host(name, ())

    def reaching_s(self, name: str) -> float:
        """For how many seconds a connection to this host has been tried by now; 0: nobody tries."""
        made = self._made.get(name)
        return 0.0 if made is None else made.reaching_s()

    def _to_host(self, name: str, waiting: tuple[str, ...]) -> SshConnection:
        _check_way(waiting, name)
        if name not in self._made:
            host = self._spec.host(name)
            said = host.ssh.model_fields_set
            words = self._words(
                host.ssh,
                name,
                host.address,
                host.ssh.user if "user" in said else None,
                host.ssh.port if "port" in said else None,
            )
            server = _server(name, host.address, host.ssh, words)
            jump = host.ssh.jump if "jump" in said or words is None else words.jump
            before = self._way(server, jump, words, "jump" in said, host.ssh, (*waiting, name))
            self._made[name] = SshConnection(server, self._gate, before)
        return self._made[name]

    def _words(
        self, ssh: SshSpec, label: str, address: str, user: str | None, port: int | None
    ) -> Words | None:
        if ssh.config is None:
            return None
        config = self._configs.setdefault(ssh.config, ClientConfig(ssh.config, self._withheld))
        return config.of(label, address, user, port)

    def _way(
        self,
        server: Server,
        jump: str | None,
        words: Words | None,
        own: bool,
        ssh: SshSpec,
        waiting: tuple[str, ...],
    ) -> SshConnection | None:
        """The last jump host before `server`. `own`: fleet.yaml says which way, so ~/.ssh/config does not."""
        if not own and words is not None and words.proxy_command is not None:
            raise server.failure(
                "config",
                f"{ssh.config} reaches {server.address} by a ProxyCommand ({words.proxy_command[:120]}), which"
                " fleetctl does not run",
                'Write it as ProxyJump, or "ssh: {jump: ...}" or "ssh: {config: none}" in fleet.yaml',
            )
        before: SshConnection | None = None
        for word in (jump or "").split(","):
            if word.strip():
                before = self._to_jump(word.strip(), before, ssh, waiting)
        return before

    def _to_jump(
        self, word: str, before: SshConnection | None, ssh: SshSpec, waiting: tuple[str, ...]
    ) -> SshConnection:
        if before is None and any(host.name == word for host in self._spec.hosts):
            return self._to_host(word, waiting)
        user, _, rest = word.removeprefix("ssh://").rpartition("@")
        host, port = _split_port(rest)
        known = next((one for one in self._spec.hosts if one.name == host), None)
        base = known.ssh if known else ssh
        address = known.address if known else host
        _check_way(waiting, address)
        words = self._words(base, host, address, user or None, port)
        server = _jump_server(host, address, base, user, port or (base.port if known else None), words)
        if before is None and words is not None and words.jump is not None:
            # Its own way there; of the further ones the chain says it.
            before = self._way(server, words.jump, words, False, ssh, (*waiting, address))
        key = (server, id(before))
        return self._made.setdefault(key, SshConnection(server, self._gate, before))

    def close(self) -> None:
        with self._lock:
            made = list(self._made.values())
        # Those behind a jump host first: their streams run inside its connection.
        for one in sorted(made, key=_depth, reverse=True):
            one.close()


def _check_way(waiting: tuple[str, ...], name: str) -> None:
    if name in waiting or len(waiting) >= MAX_JUMPS:
        circle = " -> ".join((*waiting, name))
        raise HostFailure(
            waiting[0],
            "config",
            f"its jump hosts go round in a circle: {circle}",
            "Correct ssh.jump, or ProxyJump in ~/.ssh/config",
        )


def _server(label: str, address: str, ssh: SshSpec, words: Words | None) -> Server:
    """Where fleet.yaml is silent ~/.ssh/config speaks, and where that is silent too, our defaults."""
    said = ssh.model_fields_set
    if words is None:
        words = _SILENT
    return Server(
        label=label,
        address=words.address or address,
        port=ssh.port if "port" in said or not words.port else words.port,
        user=(ssh.user if "user" in said else words.user) or getpass.getuser(),
        keys=_keys(ssh, words),
        known_hosts=words.known_hosts
        if "known_hosts" not in said and words.known_hosts
        else (ssh.known_hosts,),
        key_alias=words.key_alias,
        connect_timeout=ssh.connect_timeout
        if "connect_timeout" in said
        else words.connect_timeout or ssh.connect_timeout,
        command_timeout=ssh.command_timeout,
        keepalive=ssh.keepalive if "keepalive" in said else words.keepalive or ssh.keepalive,
    )


def _jump_server(
    label: str, address: str, base: SshSpec, user: str, port: int | None, words: Words | None
) -> Server:
    """A jump host outside of the inventory has what its own word says, then ~/.ssh/config, then `base`."""
    if words is not None:
        user = user or (words.user if words.user != getpass.getuser() else "")
        port = port or words.port
    update = {"user": user or base.user, "port": port or 22, "jump": None}
    return _server(label, address, base.model_copy(update=update), words)


def _keys(ssh: SshSpec, words: Words) -> KeyChoice:
    agent = os.environ.get("SSH_AUTH_SOCK") if words.agent is None else words.agent
    agent = None if agent in (None, "", "none") else agent
    if ssh.identity_file is not None:
        return KeyChoice((ssh.identity_file,), words.certificates, required=True, only=True, agent=agent)
    return KeyChoice(words.identity_files, words.certificates, only=words.identities_only, agent=agent)


_SILENT = Words("", "", 0, None, None, (), (), False, None, (), None, None, None)


def _depth(connection: SshConnection) -> int:
    return 0 if connection.jump is None else 1 + _depth(connection.jump)


def _split_port(text: str) -> tuple[str, int | None]:
    """HOST, HOST:PORT, [V6]:PORT or a bare IPv6 address."""
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit() and (":" not in host or host.startswith("[")):
        return host.removeprefix("[").removesuffix("]"), int(port)
    return text.removeprefix("[").removesuffix("]"), None
