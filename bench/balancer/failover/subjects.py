"""The front doors in front of three hosts: how each is started, and how it drains one.

HAProxy and nginx as their manuals suggest for such hosts; "tuned" has HAProxy's passive checks and retries on, with the
setting that many recommend and that may run a POST twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.balancer.processes import free_port

SUBJECTS = ("fleetctl", "haproxy", "haproxy-tuned", "nginx")

HAPROXY = """
global
  nbthread 1
  stats socket {folder}/admin.sock mode 600 level admin
defaults
  mode http
  http-reuse always
  timeout connect 2s
  timeout client 60s
  timeout server 10s
  timeout queue 5s
  option redispatch
  option httpchk GET /readyz
  {defaults}
backend hosts
  balance leastconn
  default-server check inter 1s fall 3 rise 1 {server}
{servers}
frontend front
  bind 127.0.0.1:{port}
  default_backend hosts
"""
TUNED = (
    "retry-on conn-failure empty-response response-timeout\n  retries 3",
    "fastinter 200ms observe layer7 error-limit 5 on-error mark-down",
)
NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream hosts {{ least_conn; {servers} keepalive 512; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://hosts; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_read_timeout 10s; proxy_connect_timeout 2s; }}
  }}
}}
"""


@dataclass
class Door:
    """A front door that serves. `drain(i)` returns once the command to drain host `i` has."""

    port: int
    drain: Callable[[int], None]


@contextlib.contextmanager
def serving(subject: str, hosts: Sequence[int], folder: Path) -> Iterator[Door]:
    """`subject` in front of the hosts on these ports. Raises RuntimeError where it can't be had."""
    port = free_port()
    if subject == "fleetctl":
        with _fleetctl(port, hosts) as door:
            yield door
        return
    name = subject.partition("-")[0]
    binary = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if binary is None:
        raise RuntimeError(f"{name} is not installed (Debian: apt install {name})")
    config = folder / f"{subject}.conf"

    def write(down: int | None = None) -> None:
        if name == "haproxy":
            defaults, server = TUNED if subject == "haproxy-tuned" else ("retries 3", "")
            servers = "\n".join(f"  server h{i} 127.0.0.1:{p}" for i, p in enumerate(hosts))
            text = HAPROXY.format(folder=folder, port=port, defaults=defaults, server=server, servers=servers)
        else:
            servers = " ".join(
                f"server 127.0.0.1:{p}{' down' if i == down else ''};" for i, p in enumerate(hosts)
            )
            text = NGINX.format(folder=folder, port=port, servers=servers)
        config.write_text(text, encoding="utf-8")

    write()
    command = [binary, "-db", "-f", str(config)] if name == "haproxy" else [binary, "-c", str(config)]
    with _process(command) as process:

        def drain(host: int) -> None:
            if name == "haproxy":
                with socket.socket(socket.AF_UNIX) as admin:
                    admin.connect(str(folder / "admin.sock"))
                    admin.sendall(f"set server hosts/h{host} state drain\n".encode())
                    admin.recv(1024)
            else:
                write(host)
                os.kill(process.pid, signal.SIGHUP)

        _await(lambda: _answers(port), process)
        yield Door(port, drain)


@contextlib.contextmanager
def _fleetctl(port: int, hosts: Sequence[int]) -> Iterator[Door]:
    admin = f"127.0.0.1:{free_port()}"

    def ask(method: str, path: str, document: object = None) -> dict[str, list[dict[str, object]]]:
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(f"http://{admin}{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=5) as reply:
            answer: dict[str, list[dict[str, object]]] = json.load(reply)
            return answer

    command = [sys.executable, "-m", "fleet_balancer", "--listen", f"127.0.0.1:{port}", "--admin", admin]
    with _process(command) as process:
        _await(lambda: _listens(int(admin.rpartition(":")[2])), process)
        backends = [{"name": f"h{i}", "address": f"127.0.0.1:{p}"} for i, p in enumerate(hosts)]
        ask("PUT", "/backends", {"pools": [{"name": "default"}], "backends": backends})
        _await(lambda: all(b["healthy"] for b in ask("GET", "/status")["backends"]), process)

        def drain(host: int) -> None:
            ask("POST", f"/backends/h{host}/drain", {})

        yield Door(port, drain)


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 15.0
    while not true():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{process.args!r} does not serve")
        time.sleep(0.02)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
