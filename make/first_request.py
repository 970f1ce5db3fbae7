"""The end of `make up`: waits until a host is ready, sends one real sentence through the balancer, shows the answer.

    .venv/bin/python make/first_request.py [SECONDS]

Exits 0 when a vector came back, 1 with what is known of why not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FLEETCTL = Path(sys.executable).with_name("fleetctl")
SENTENCE = "A fleet of plain machines, one file, no Kubernetes."
MODEL = "minilm"


def show(text: str = "") -> None:
    print(text, flush=True)


def status() -> dict[str, Any]:
    done = subprocess.run(
        [FLEETCTL, "-f", "fleet.yaml", "status", "-o", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise SystemExit(
            f"make: fleetctl status gave no JSON (exit {done.returncode}): {done.stderr.strip()}"
        ) from None
    return answer


def wait_ready(seconds: float) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while True:
        now = status()
        if now.get("endpoint") and any(host["state"] == "ready" for host in now["hosts"]):
            return now
        if time.monotonic() > end:
            hosts = "\n".join(
                f"        {h['name']}: {h['state']} {h.get('error') or ''}" for h in now["hosts"]
            )
            raise SystemExit(
                f"make: no host was ready after {seconds:.0f} s:\n{hosts}\n      Look with: fleetctl logs HOST"
            )
        time.sleep(0.5)


def ask(endpoint: str) -> list[float]:
    url = f"{endpoint}/v1/models/{MODEL}:predict"
    body = json.dumps({"instances": [SENTENCE]}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    # The fleet is on this machine: a proxy meant for the outside is not asked.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=60) as answer:
            vector: list[float] = json.load(answer)["predictions"][0]
    except urllib.error.HTTPError as error:
        raise SystemExit(
            f"make: {url} answered {error.code}: {error.read(2000).decode(errors='replace')}"
        ) from None
    except OSError as error:
        raise SystemExit(f"make: {url} cannot be reached: {error}. Look with: fleetctl status") from None
    return vector


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 240.0
    now = wait_ready(seconds)
    endpoint = now["endpoint"] if "//" in now["endpoint"] else f"http://{now['endpoint']}"
    began = time.perf_counter()
    vector = ask(endpoint)
    took = (time.perf_counter() - began) * 1000
    head = ", ".join(f"{number:.4f}" for number in vector[:4])
    show()
    show(f'  asked     "{SENTENCE}"')
    show(f"  answered  [{head}, ...]   {len(vector)} numbers in {took:.0f} ms, through {endpoint}")
    show()
    show("  Next:")
    show(f'    curl {endpoint}/v1/models/{MODEL}:predict -d \'{{"instances": ["your own text"]}}\'')
    pools = [pool["name"] for pool in now.get("pools", [])]
    for command, meaning in (
        (". .venv/bin/activate", "puts fleetctl on your PATH"),
        ("fleetctl status", "what runs where, and how fast it answers"),
        (f"fleetctl scale {pools[0]}=3" if len(pools) > 1 else "fleetctl scale 3", "three hosts"),
        ("fleetctl events", "what happened, and why"),
        ("make down", "drains and stops everything"),
    ):
        show(f"    {command:<30} {meaning}")


if __name__ == "__main__":
    main()
