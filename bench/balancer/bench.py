"""The front door against direct connections, HAProxy and nginx: `python bench/balancer/bench.py` (QUICK=1: < 1 min).

The proxy has core 0, load and hosts have core 1; every case runs against each in turn, several rounds, medians.
HAProxy and nginx are taken where they are installed (or from --haproxy, --nginx, --wrk); what is not there is a row
with an error. `cpu_us` is the proxy's own CPU time per request: it says more than req/s on a busy machine.
Writes bench/out/balancer.json, prints a table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OUT = HERE.parent / "out" / "balancer.json"
CASES = {"post-1k-c64": (64, 1024), "post-1k-c1": (1, 1024), "post-256k-c8": (8, 256 * 1024)}
UNITS = {"rps": "1/s", "p50_ms": "ms", "p99_ms": "ms", "cpu_us": "us/request"}
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")

HAPROXY = """
global
  nbthread 1
  maxconn 4000
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
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_max_body_size 1g;
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


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def pinned(core: int) -> list[str]:
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 and shutil.which("taskset") else []


@contextlib.contextmanager
def running(core: int, command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that serves on `port`. Raises RuntimeError where it does not."""
    process = subprocess.Popen([*pinned(core), *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    process.kill()
                    said = process.communicate()[1].decode(errors="replace").strip().splitlines()
                    raise RuntimeError(
                        f"{Path(command[0]).name} does not serve: {said[-1] if said else ''}"
                    ) from None
                time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children that run now (nginx works in a child)."""
    total = 0.0
    for other in [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
        fields = Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) * TICK_S
    return total


def load(
    wrk: str | None, port: int, connections: int, seconds: float, size: int, folder: Path
) -> dict[str, float]:
    if wrk is None:
        command = [
            sys.executable,
            str(HERE / "load.py"),
            str(port),
            str(connections),
            str(seconds),
            str(size),
        ]
        done = subprocess.run([*pinned(1), *command], capture_output=True, text=True, check=True)
        result: dict[str, float] = json.loads(done.stdout)
        return result
    script = folder / "post.lua"
    script.write_text(
        f'wrk.method = "POST"; wrk.body = string.rep("x", {size})\n'
        'wrk.headers["Content-Type"] = "application/json"\nlocal n = 0\n'
        'request = function() n = n + 1; wrk.headers["X-Unique"] = n; '
        'return wrk.format(nil, "/v1/models/m:predict") end\n'
    )
    command = [wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "-s", str(script)]
    done = subprocess.run(
        [*pinned(1), *command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True
    )
    text = done.stdout
    unit = {"us": 0.001, "ms": 1.0, "s": 1000.0}

    def percentile(which: str) -> float:
        found = re.search(rf"\s{which}%\s+([0-9.]+)(us|ms|s)", text)
        return float(found[1]) * unit[found[2]] if found else float("nan")

    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    socket_errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return {
        "requests": float(re.search(r"(\d+) requests in", text)[1]),  # type: ignore[index]
        "rps": float(re.search(r"Requests/sec:\s+([0-9.]+)", text)[1]),  # type: ignore[index]
        "p50_ms": percentile("50"),
        "p99_ms": percentile("99"),
        "errors": (int(failed[1]) if failed else 0)
        + (sum(map(int, socket_errors.groups())) if socket_errors else 0),
    }


def command_for(subject: str, args: argparse.Namespace, port: int, a: int, b: int, folder: Path) -> list[str]:
    """How a subject is started. Raises RuntimeError where it isn't installed."""
    if subject == "fleetctl":
        listen = ["--listen", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0"]
        return [sys.executable, "-m", "fleet_balancer", *listen, "--backends", f"127.0.0.1:{a},127.0.0.1:{b}"]
    binary = getattr(args, subject) or shutil.which(subject) or shutil.which(subject, path="/usr/sbin:/sbin")
    if binary is None:
        raise RuntimeError(f"{subject} is not installed (Debian: apt install {subject})")
    config = folder / f"{subject}.conf"
    template = HAPROXY if subject == "haproxy" else NGINX
    config.write_text(template.format(port=port, a=a, b=b, folder=folder))
    return [binary, "-db", "-f", str(config)] if subject == "haproxy" else [binary, "-c", str(config)]


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("haproxy", "nginx", "wrk"):
        p.add_argument(f"--{name}", help=f"path of {name}; else looked up")
    args = p.parse_args()
    wrk = args.wrk or shutil.which("wrk")
    quick = bool(os.environ.get("QUICK"))
    seconds, rounds = (1.0, 1) if quick else (4.0, 5)
    seen: dict[tuple[str, str, str], list[float]] = {}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        a, b = free_port(), free_port()
        stack.enter_context(running(1, [sys.executable, str(HERE / "origin.py"), str(a), str(b)], b))
        subjects: dict[str, tuple[int, int | None]] = {"direct": (a, None)}
        for subject in ("fleetctl", "haproxy", "nginx"):
            port = free_port()
            try:
                command = command_for(subject, args, port, a, b, folder)
                subjects[subject] = (port, stack.enter_context(running(0, command, port)).pid)
            except RuntimeError as error:
                failures[subject] = str(error)
        time.sleep(1.0)  # the first health checks
        for _ in range(rounds):
            for case, (connections, size) in CASES.items():
                for subject, (port, pid) in subjects.items():
                    before = cpu_s(pid) if pid else 0.0
                    result = load(wrk, port, connections, seconds, size, folder)
                    if result["errors"]:
                        failures[subject] = f"{case}: {result['errors']:.0f} requests failed"
                    for metric in ("rps", "p50_ms", "p99_ms"):
                        seen.setdefault((case, subject, metric), []).append(result[metric])
                    if pid:
                        spent = (cpu_s(pid) - before) / result["requests"] * 1e6
                        seen.setdefault((case, subject, "cpu_us"), []).append(spent)
    return report(seen, failures, "wrk" if wrk else "bench/balancer/load.py", quick)


def report(
    seen: dict[tuple[str, str, str], list[float]], failures: dict[str, str], load_by: str, quick: bool
) -> int:
    medians = {key: statistics.median(values) for key, values in seen.items()}
    rows: list[dict[str, Any]] = []
    for case in CASES:
        for metric, unit in UNITS.items():
            ours = medians.get((case, "fleetctl", metric))
            for peer in ("direct", "haproxy", "nginx"):
                row: dict[str, Any] = {"case": case, "subject": "fleetctl", "metric": metric, "unit": unit}
                row["peer"] = peer
                theirs = medians.get((case, peer, metric))
                row |= {"value": ours, "peer_value": theirs}
                row["ratio"] = ours / theirs if ours is not None and theirs else None
                error = failures.get("fleetctl") or failures.get(peer)
                if error:
                    row["error"] = error
                if theirs is not None or error:
                    rows.append(row)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(
        json.dumps({"rows": rows, "load": load_by, "quick": quick}, indent=1) + "\n", encoding="utf-8"
    )
    print(
        f"{'case':14} {'subject':9} {'req/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'CPU us/req':>10}   (load: {load_by})"
    )
    for case in CASES:
        for subject in ("direct", "fleetctl", "haproxy", "nginx"):
            got = [medians.get((case, subject, metric)) for metric in UNITS]
            if got[0] is None:
                print(f"{case:14} {subject:9} {failures.get(subject, 'not run')}")
            else:
                columns = zip(got, ("9.0f", "8.2f", "8.2f", "10.1f"), strict=True)
                numbers = [
                    f"{v:{w}}" if v is not None else f"{'-':>{w.partition('.')[0]}}" for v, w in columns
                ]
                print(f"{case:14} {subject:9} {' '.join(numbers)}")
    for subject, why in failures.items():
        print(f"{subject}: {why}")
    print(f"rows: {OUT}")
    return 1 if "fleetctl" in failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as failed:
        sys.exit(f"the load generator failed ({failed.returncode}): {' '.join(failed.cmd)}\n{failed.stderr}")
