"""fleet.yaml asks for API keys and speaks HTTPS: who comes in, and what changes while the fleet runs."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.timeout(240)]

LOCAL = 'hosts: [{name: "h1", address: local}]'
REQUEST = {"instances": [[1.0, 2.0, 3.0, 4.0]]}


def certificate(folder: Path) -> dict[str, str]:
    names = {"certificate": "certificate.pem", "key": "key.pem"}
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
            "-subj", "/CN=fleet", "-addext", "subjectAltName=IP:127.0.0.1",
            "-out", str(folder / names["certificate"]), "-keyout", str(folder / names["key"])]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True)
    return names


class Clients:
    """Requests to the fleet's endpoint, over HTTPS that is checked."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        trust = ssl.create_default_context(cafile=str(folder / "certificate.pem"))
        self._http = httpx.Client(base_url=endpoint, verify=trust, timeout=30)

    def ask(self, key: str = "", **headers: str) -> int:
        headers |= {"authorization": f"Bearer {key}"} if key else {}
        return self._http.post("/v1/models/tiny:predict", json=REQUEST, headers=headers).status_code

    def close(self) -> None:
        self._http.close()


def test_only_clients_with_a_key_come_in_and_the_rules_change_while_they_ask(fleet: Any) -> None:
    balancer = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "tls": certificate(fleet.folder)}
    known = {**balancer, "keys": "required", "access_log": {"path": "access.log"}}
    scaling = {"min_servers": 1, "max_servers": 1}
    fleet.write(LOCAL, scaling, balancer=known)
    early = fleet.cli("keys", "create", "early").strip()  # before the fleet was ever up
    fleet.cli("up")
    endpoint = fleet.endpoint
    assert endpoint.startswith("https://127.0.0.1:")
    clients = Clients(endpoint, fleet.folder)
    assert [clients.ask(), clients.ask("fleet-guess"), clients.ask(early)] == [401, 401, 200]

    # A key is in force, and is out of it, when the command returns.
    late = fleet.cli("keys", "create", "late", "--rate", "0.01", "--burst", "1").strip()
    assert [clients.ask(late), clients.ask(late)] == [200, 429]
    listed = json.loads(fleet.cli("keys", "list", "-o", "json"))
    assert [k["name"] for k in listed["keys"]] == ["early", "late"] and listed["required"]
    fleet.cli("keys", "revoke", "late")
    assert clients.ask(late) == 401

    # The rules change under a client that goes on asking.
    failed: list[str] = []
    stop = threading.Event()

    def load() -> None:
        steady = Clients(endpoint, fleet.folder)
        while not stop.is_set():
            try:
                if (code := steady.ask(early)) != 200:
                    failed.append(str(code))
            except httpx.HTTPError as error:
                failed.append(repr(error))
            time.sleep(0.005)  # the processors are the fleet's
        steady.close()

    thread = threading.Thread(target=load)
    thread.start()
    try:
        fleet.write(
            LOCAL, scaling, balancer={**known, "timeouts": {"idle": "20s"}, "limits": {"head": "4KiB"}}
        )
        fleet.wait("the limits to be in force", lambda: clients.ask(early, padding="x" * 5000) == 431)
        fleet.write(LOCAL, scaling, balancer=balancer)
        fleet.wait("keys off", lambda: clients.ask() == 200)
    finally:
        stop.set()
        thread.join()
    assert not failed

    written = (fleet.folder / "access.log").read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    assert {line["key"] for line in lines if line["status"] == 200} >= {"early", "late"}
    assert {line["status"] for line in lines} >= {200, 401, 429}
    clients.close()
    no_key_anywhere(fleet.folder, [early, late])


def no_key_anywhere(folder: Path, keys: list[str]) -> None:
    """No file of the fleet, log or store, holds a key."""
    for root, _, files in os.walk(folder):
        for name in files:
            path = Path(root) / name
            data = path.read_bytes() if path.is_file() else b""  # a socket holds nothing
            assert not any(key.encode() in data for key in keys), f"{root}/{name} holds a key"
