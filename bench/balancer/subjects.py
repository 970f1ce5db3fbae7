"""How each front door is started: fleetctl with every feature on, and the peers as their users would tune them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench import peers
from bench.balancer.processes import free_port, running

HERE = Path(__file__).parent
SUBJECTS = ("fleetctl", "haproxy", "nginx", "aiohttp", "skyserve")
# Every subject gets it in every request; fleetctl checks it.
KEY = "fk-" + "0123456789abcdef" * 4

HAPROXY = """
global
  nbthread 1
  maxconn 9000
defaults
  mode http
  option forwardfor
  http-reuse always
  timeout connect 2s
  timeout client 60s
  timeout server 60s
listen front
  bind 127.0.0.1:{port}
  balance leastconn
  server a 127.0.0.1:{a}
  server b 127.0.0.1:{b}
"""
NGINX = """
worker_processes 1;
worker_rlimit_nofile 65536;
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  client_max_body_size 2g;
  client_body_buffer_size 1m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 1000000000;
  upstream hosts {{ least_conn; server 127.0.0.1:{a}; server 127.0.0.1:{b}; keepalive 512;
    keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://hosts; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr; }}
  }}
}}
"""


@contextlib.contextmanager
def serving(subject: str, a: int, b: int, folder: Path, core: int = 0) -> Iterator[tuple[int, int]]:
    """A subject in front of the hosts on ports `a` and `b`: its port and pid. Raises RuntimeError."""
    port = free_port()
    if subject == "fleetctl":
        with _fleetctl(port, a, b, core) as pid:
            yield port, pid
        return
    patience_s = 60.0 if subject == "skyserve" else 15.0
    with running(core, _command(subject, port, a, b, folder), port, patience_s) as process:
        yield port, process.pid


@contextlib.contextmanager
def _fleetctl(port: int, a: int, b: int, core: int) -> Iterator[int]:
    """With API keys checked; metrics, histograms and request ids are always on."""
    admin = free_port()
    command = [sys.executable, "-m", "fleet_balancer", "--listen", f"127.0.0.1:{port}"]
    command += ["--admin", f"127.0.0.1:{admin}", "--backends", f"127.0.0.1:{a},127.0.0.1:{b}"]
    with running(core, command, port) as process:
        url = f"http://127.0.0.1:{admin}/backends"
        with urllib.request.urlopen(url) as answer:
            backends = json.load(answer)
        backends["keys"] = [{"name": "bench", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]
        body = json.dumps(backends).encode()
        urllib.request.urlopen(urllib.request.Request(url, data=body, method="PUT")).close()
        yield process.pid


def _command(subject: str, port: int, a: int, b: int, folder: Path) -> list[str]:
    if subject == "aiohttp":
        python = peers.interpreter("aiohttp", "aiohttp==3.14.5", "uvloop==0.23.0")
        return [str(python), str(HERE / "peer_aiohttp.py"), str(port), str(a), str(b)]
    if subject == "skyserve":
        python = peers.interpreter("skyserve", "skypilot==0.14.1", "fastapi", "uvicorn", "httpx", "aiohttp")
        return [str(python), str(HERE / "peer_skyserve.py"), str(port), str(a), str(b)]
    binary = shutil.which(subject) or shutil.which(subject, path="/usr/sbin:/sbin")
    if binary is None:
        raise RuntimeError(f"{subject} is not installed (Debian: apt install {subject})")
    config = folder / f"{subject}-{port}.conf"
    config.write_text(
        (HAPROXY if subject == "haproxy" else NGINX).format(port=port, a=a, b=b, folder=folder),
        encoding="utf-8",
    )
    return [binary, "-db", "-f", str(config)] if subject == "haproxy" else [binary, "-c", str(config)]


def version(subject: str) -> str:
    """What answers to that name here; empty where it can't say."""
    binary = shutil.which(subject) or shutil.which(subject, path="/usr/sbin:/sbin")
    if subject not in ("haproxy", "nginx") or binary is None:
        return ""
    said = subprocess.run([binary, "-v"], capture_output=True, text=True, check=False)
    lines = (said.stdout + said.stderr).strip().splitlines()
    return lines[0] if lines else ""
