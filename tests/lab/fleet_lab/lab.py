"""Makes hosts, knows their keys, and takes everything away again."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from fleet_lab import processes
from fleet_lab.host import Host, free_port, hosts_yaml, make_key
from fleet_lab.netns import NetnsHost, Network


class Lab:
    """The hosts of one test. Call it to make some: `lab(3)`."""

    def __init__(self, backend: str, network: Network | None = None) -> None:
        self._network = network
        self._backend = backend
        # Short: the path of a socket may not exceed 108 bytes, and readable by every user as a home must be.
        self._temporary = tempfile.TemporaryDirectory(prefix="fleet-lab-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        self._mark = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.hosts: list[Host] = []
        self._ports: set[int] = set()
        self.client_key = make_key(self.folder / "id_ed25519")
        self.known_hosts = self.folder / "known_hosts"
        self.known_hosts.touch(mode=0o600)

    def __call__(self, count: int, *, known: bool = True) -> list[Host]:
        """`count` more hosts that run. Unless `known` is false their keys are in `known_hosts`."""
        made = [self._make(f"h{len(self.hosts) + 1 + number}") for number in range(count)]
        self.hosts += made
        for host in made:
            self._start(host)
        if known:
            with self.known_hosts.open("a") as file:
                file.writelines(f"{host.key_line()}\n" for host in made)
        return made

    def _make(self, name: str) -> Host:
        folder = self.folder / name
        if self._network is not None:
            return NetnsHost(name, folder, self._network, self.client_key, self._mark)
        return Host(name, folder, "127.0.0.1", self._port(), self.client_key, self._mark)

    def _port(self) -> int:
        while (port := free_port("127.0.0.1")) in self._ports:
            pass  # the system gives the same one again as long as nobody listens there
        self._ports.add(port)
        return port

    def _start(self, host: Host) -> None:
        """Some other test's process may have been given the host's port before its sshd came to take it."""
        for _ in range(5):
            try:
                host.start()
                return
            except RuntimeError as error:
                if self._network is not None or "Address already in use" not in str(error):
                    raise
                host.port = self._port()
        host.start()

    def yaml(self, hosts: list[Host] | None = None, **changes: object) -> str:
        """`hosts:` of a fleet.yaml."""
        return hosts_yaml(self.hosts if hosts is None else hosts, **changes)

    def close(self) -> None:
        for host in self.hosts:
            host.close()
        for host in self.hosts:
            left = host.processes()
            processes.end(left)
        self._temporary.cleanup()
