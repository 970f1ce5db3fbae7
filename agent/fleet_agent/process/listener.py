"""Where the agent listens: the socket, and how those who started it find it."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import tempfile
from pathlib import Path

from fleet_agent.process.configuration import BadConfig
from fleet_wire.agent import AgentConfig, RunFile

log = logging.getLogger("fleet_agent")


def bound(listen: str, token: str | None) -> socket.socket:
    """A listening socket. Raises BadConfig, also for an address that strangers reach while no token is asked."""
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise BadConfig(f"listen: {listen!r} is not HOST:PORT, such as 127.0.0.1:9400 (port 0: a free one)")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise BadConfig(f"listen: {host} is no address of this machine: {error.strerror}") from None
    if token is None and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise BadConfig(
            f"listen: {listen} can be reached from outside; give a token file, or listen on 127.0.0.1"
        )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise BadConfig(f"listen: {listen}: {error.strerror}; is another server on that port?") from None
    return listener


def announce(config: AgentConfig, listener: socket.socket) -> None:
    """Where it listens, on stdout and in the run file."""
    host, port = listener.getsockname()[:2]
    if config.run_file is not None:
        run = RunFile(
            pid=os.getpid(),
            start_ticks=_start_ticks(),
            boot_id=_boot_id(),
            port=port,
            action_id=config.action_id,
            release=config.release,
        )
        _write_atomically(Path(config.run_file).expanduser(), run.model_dump_json())
    shown = f"[{host}]" if ":" in host else host
    print(f"listening on http://{shown}:{port}", flush=True)  # noqa: T201 - the line that starters wait for
    log.info("listening on http://%s:%d", shown, port)


def _write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the whole new one, after a power cut too."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def _start_ticks() -> int:
    """Field 22 of /proc/self/stat; the fields are counted after the command's closing parenthesis, which is field 2."""
    try:
        stat = Path("/proc/self/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
