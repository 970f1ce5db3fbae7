"""What is particular to HAProxy as the engine: its life, its log, its configuration."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import math
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleet_wire.balancer import BalancerStatus
from fleet_wire.histogram import LatencyHistogram

pytestmark = pytest.mark.slow

needs_haproxy = pytest.mark.skipif(
    shutil.which("haproxy", path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin") is None
    and shutil.which("haproxy") is None,
    reason="there is no haproxy: make test-tools brings it",
)


def children(pid: int) -> list[int]:
    """Processes that `pid` started and that run HAProxy."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [int(c) for c in found if b"haproxy.cfg" in Path(f"/proc/{c}/cmdline").read_bytes()]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def healthy(front: Any, wait_until: Any, *names: str) -> None:
    def check() -> bool:
        now = {b["name"]: b["healthy"] for b in front.status()["backends"]}
        return all(now.get(name) for name in names)

    await asyncio.to_thread(wait_until, check)


@needs_haproxy
async def test_percentiles_are_those_that_clients_see(
    origin: Any, balancer: Any, http: Any, wait_until: Any
) -> None:
    host = origin("a")
    front = balancer()
    front.put(host)
    await healthy(front, wait_until, "a")
    seen: list[float] = []

    async def client(delays: list[int]) -> None:
        one = await http.open(front.port)
        for delay in delays:
            start = time.perf_counter()
            assert (await one.ask("POST", f"/slow/{delay}", b"x")).status == 200
            seen.append((time.perf_counter() - start) * 1000)
        await one.close()

    await asyncio.gather(*(client([20, 20, 40, 20, 80, 20, 40, 160]) for _ in range(5)))
    await asyncio.to_thread(wait_until, lambda: front.status()["pools"][0]["completed"] == 40)
    latency = LatencyHistogram.from_wire(BalancerStatus.model_validate(front.status()).pools[0].latency)
    seen.sort()
    for q in (0.5, 0.9, 0.95):
        told = latency.quantile(q)
        assert told is not None
        assert told == pytest.approx(seen[math.ceil(q * len(seen)) - 1], rel=0.1), q


@needs_haproxy
async def test_haproxy_that_dies_is_back_at_once_and_new_connections_are_never_refused(
    origin: Any, balancer: Any, http: Any, wait_until: Any
) -> None:
    host = origin("a")
    front = balancer()
    front.put(host)
    await healthy(front, wait_until, "a")
    (first,) = children(front.process.pid)
    os.kill(first, signal.SIGKILL)
    start = time.monotonic()
    client = await http.open(front.port)
    assert (await client.ask("POST", "/x", b"x")).status == 200
    assert time.monotonic() - start < 2.0
    await client.close()
    (second,) = children(front.process.pid)
    assert second != first


@needs_haproxy
async def test_no_haproxy_outlives_a_balancer_that_was_killed(balancer: Any, wait_until: Any) -> None:
    front = balancer()
    (haproxy,) = children(front.process.pid)
    front.process.kill()
    await asyncio.to_thread(wait_until, lambda: gone(haproxy), 2.0)


@needs_haproxy
async def test_each_host_gets_its_own_token_also_where_the_first_one_is_dead(
    origin: Any, balancer: Any, http: Any, wait_until: Any
) -> None:
    hosts = [origin(name) for name in "ab"]
    front = balancer("--probe-interval", "30")
    front.put(*({"name": h.name, "address": h.address, "token": f'"{h.name}\\%[x]#$' + "'"} for h in hosts))
    await healthy(front, wait_until, "a", "b")
    clients = [await http.open(front.port) for _ in range(2)]
    replies = [(await c.ask("GET", "/seen", Authorization="Bearer client")).body.decode() for c in clients]
    assert sorted(t for r in replies for t in "ab" if f"authorization: Bearer \"{t}\\%[x]#$'\r\n" in r) == [
        "a",
        "b",
    ]
    assert not any("client" in r or "x-fleet" in r for r in replies)
    hosts[0].kill()
    for i in range(6):
        reply = await clients[i % 2].ask("POST", "/seen", b"x")
        assert (reply.status, b'Bearer "b' in reply.body) == (200, True)
    for client in clients:
        await client.close()


@needs_haproxy
async def test_only_keys_in_force_come_in_and_only_to_their_pools(
    origin: Any, balancer: Any, http: Any, wait_until: Any
) -> None:
    host, other = origin("a"), origin("b")
    front = balancer()

    def put(*keys: dict[str, Any]) -> None:
        document = {
            "pools": [{"name": "p", "models": [{"name": "m"}]}, {"name": "q", "models": [{"name": "n"}]}],
            "backends": [
                {"name": "a", "address": host.address, "pool": "p"},
                {"name": "b", "address": other.address, "pool": "q"},
            ],
            "keys": list(keys),
        }
        code, body = front.ask("PUT", "/backends", document)
        assert code == 200, body

    def key(text: str, **more: Any) -> dict[str, Any]:
        return {"name": text, "sha256": hashlib.sha256(text.encode()).hexdigest(), **more}

    put(key("mine", pools=["p"]), key("slow", rate_per_s=0.3))
    await healthy(front, wait_until, "a", "b")
    client = await http.open(front.port)

    async def ask(model: str, **headers: str) -> int:
        reply = await client.ask("GET", f"/v1/models/{model}", **headers)
        if reply.status >= 400:
            assert "code" in json.loads(reply.body)["error"]
        return int(reply.status)

    assert await ask("m") == 401
    assert await ask("m", Authorization="Bearer nobody") == 401
    assert await ask("m", Authorization="Bearer mine") == 200
    assert await ask("m", x_api_key="mine") == 200
    assert await ask("n", x_api_key="mine") == 403
    assert [await ask("n", x_api_key="slow") for _ in range(4)] == [200, 200, 200, 429]
    seen = await client.ask("GET", "/seen", x_api_key="mine", x_fleet_model="m")
    assert b"mine" not in seen.body
    put()
    assert await ask("m", x_api_key="mine") == 401
    await client.close()


@needs_haproxy
async def test_ten_new_configurations_under_load_cost_no_request(
    origin: Any, balancer: Any, load: Any, wait_until: Any
) -> None:
    hosts = [origin(name) for name in "ab"]
    front = balancer()
    front.put(*hosts)
    await healthy(front, wait_until, "a", "b")
    async with load(front.port, "/slow/5", 8) as tally:
        for i in range(10):
            routing = ("round_robin", "power_of_two")[i % 2]
            await asyncio.to_thread(front.put, *hosts, routing=routing)
            await asyncio.sleep(0.05)
    assert (tally.broken, tally.failed) == (0, 0)
    assert len(tally.replies) > 50
    pool = front.status()["pools"][0]
    assert pool["completed"] == len(tally.replies)


@needs_haproxy
async def test_a_host_that_answers_500_is_taken_out(
    origin: Any, balancer: Any, http: Any, wait_until: Any
) -> None:
    hosts = [origin(name) for name in "ab"]
    front = balancer()
    front.put(*hosts)
    await healthy(front, wait_until, "a", "b")
    client = await http.open(front.port)
    for _ in range(40):
        await client.ask("GET", "/status/500")
        if any(b["ejected_s"] for b in await asyncio.to_thread(lambda: front.status()["backends"])):
            break
    ejected = [b["name"] for b in front.status()["backends"] if b["ejected_s"]]
    assert len(ejected) == 1
    assert b'fleet_balancer_ejections_total{pool="default"} 1.0' in front.ask("GET", "/metrics")[1]
    for _ in range(6):
        assert json.loads((await client.ask("GET", "/x")).body)["host"] not in ejected
    await client.close()


@needs_haproxy
async def test_a_host_without_room_for_the_pools_models_gets_nothing_from_the_first_request_on(
    origin: Any, balancer: Any, http: Any, wait_until: Any
) -> None:
    def memory(used: int) -> dict[str, Any]:
        return {"models": [], "device_memory": {"used_bytes": used, "total_bytes": 100}}

    full, roomy, unknown = (
        origin("full", status=memory(90)),
        origin("roomy", status=memory(10)),
        origin("unknown"),
    )
    front = balancer()  # a report counts for three intervals: short ones would make a busy machine forget it
    front.put(full, roomy, unknown, models=[{"name": "big", "device_memory_bytes": 50}])
    await healthy(front, wait_until, "full", "roomy", "unknown")
    client = await http.open(front.port)
    got = {json.loads((await client.ask("GET", "/v1/models/big")).body)["host"] for _ in range(12)}
    assert got <= {"roomy", "unknown"}
    await client.close()
    assert not full.lines("begun")


def put_certificate(folder: Path) -> dict[str, str]:
    """A fresh certificate for 127.0.0.1 and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "front")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    certificate = (
        builder.not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return {"certificate": str(folder / "certificate.pem"), "key": str(folder / "key.pem")}


@needs_haproxy
async def test_a_certificate_that_is_no_good_leaves_the_old_one_also_after_haproxy_has_died(
    origin: Any, balancer: Any, wait_until: Any, tmp_path: Path, capfd: Any
) -> None:
    files, config = put_certificate(tmp_path), tmp_path / "balancer.json"
    config.write_text(json.dumps({"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "tls": files}))
    front = balancer("--config", str(config))
    front.put(origin("a"))
    await healthy(front, wait_until, "a")

    def shakes_hands() -> bool:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with (
                socket.create_connection(("127.0.0.1", front.port), 5) as plain,
                context.wrap_socket(plain, server_hostname="front"),
            ):
                return True
        except OSError:
            return False

    assert await asyncio.to_thread(shakes_hands)
    await asyncio.to_thread(Path(files["certificate"]).write_text, "junk")
    said = ""

    def told() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "the certificate stays as it was: the TLS certificate" in said

    await asyncio.to_thread(wait_until, told)
    before = children(front.pid)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(wait_until, lambda: set(children(front.pid)) - set(before))
    await asyncio.to_thread(wait_until, shakes_hands)


@needs_haproxy
async def test_the_access_log_is_written(
    origin: Any, balancer: Any, http: Any, wait_until: Any, tmp_path: Path
) -> None:
    host, log = origin("a"), tmp_path / "access.jsonl"
    config = tmp_path / "balancer.json"
    config.write_text(
        json.dumps({"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "access_log": {"path": str(log)}})
    )
    front = balancer("--config", str(config))
    front.put(host)
    await healthy(front, wait_until, "a")
    client = await http.open(front.port)
    await client.ask("POST", "/x?secret", b"x", x_request_id='my "id"')
    await client.close()
    line = json.loads(await asyncio.to_thread(wait_until, lambda: log.exists() and log.read_text()))
    assert 'my "id"' in line.values()
    assert {"POST", "/x", 200, "a"} <= {v for v in line.values() if not isinstance(v, dict)}, line


@needs_haproxy
@pytest.mark.parametrize(
    ("pool", "says"),
    [
        ({"hedge": True}, "hedge"),
        ({"tenant_header": "x-team"}, "tenant_header"),
        ({"panic_share": 0.3}, "panic_share"),
        ({"session_header": "x a"}, "session_header"),
        ({"models": [{"name": "a\nb"}]}, "visible ASCII"),
    ],
)
def test_what_haproxy_can_not_do_is_refused_and_said(balancer: Any, pool: dict[str, Any], says: str) -> None:
    front = balancer()
    before = front.ask("GET", "/backends")
    code, body = front.ask("PUT", "/backends", {"pools": [{"name": "p", **pool}], "backends": []})
    assert code == 400
    assert says in json.loads(body)["error"]["message"]
    assert front.ask("GET", "/backends") == before


def test_without_a_haproxy_it_says_what_to_do() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fleet_balancer", "--engine", "haproxy"),
            *("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
        ],
        env={**os.environ, "FLEETCTL_HAPROXY": "/nix/haproxy"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert "FLEETCTL_HAPROXY=/nix/haproxy is not a program: install it" in done.stderr
    assert "Traceback" not in done.stderr
