"""TLS at the front door, with real clients: what is spoken, what a host is told, and certificates that change."""

from __future__ import annotations

import datetime
import hashlib
import http.client
import ipaddress
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Start = Callable[..., Any]


class Pair:
    """A certificate and its key as files; put() writes others over them."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "certificate.pem", folder / "key.pem"

    def put(self, name: str, *, only: str = "certificate and key", password: bytes | None = None) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
            )
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        if "certificate" in only:
            _replace(self.certificate, certificate.public_bytes(pem))
        if "key" in only:
            _replace(self.key, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, how))


def _replace(path: Path, data: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(data)
    fresh.replace(path)


class Door:
    """A balancer that speaks TLS, with one host behind it."""

    def __init__(self, start: Start, origin: Any, folder: Path, **config: Any) -> None:
        self.pair = Pair(folder)
        if not self.pair.certificate.exists():
            self.pair.put("first")
        files = {"certificate": str(self.pair.certificate), "key": str(self.pair.key)}
        self.config = folder / "config.json"
        ports = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"}
        self.config.write_text(json.dumps({"tls": files, **ports, **config}))
        self.balancer = start("--config", str(self.config), "--backends", origin.address)
        self.port: int = self.balancer.port

    def connect(self, **limits: Any) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        for name, value in limits.items():
            setattr(context, name, value)
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), timeout=10))

    def client(self) -> http.client.HTTPConnection:
        """A client on a connection of its own."""
        made = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        made.sock = self.connect()
        return made

    def shown(self) -> str:
        """The name on the certificate that a new client sees."""
        with self.connect() as connection:
            data = connection.getpeercert(binary_form=True)
            assert data is not None
            return str(x509.load_der_x509_certificate(data).subject.rfc4514_string()).removeprefix("CN=")


def get(client: http.client.HTTPConnection, path: str = "/x") -> bytes:
    client.request("GET", path)
    reply = client.getresponse()
    body = reply.read()
    assert reply.status == 200, body
    return body


def eventually(check: Callable[[], object], within_s: float = 10.0) -> None:
    until = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < until, f"not true within {within_s} s"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def host(starters: tuple[Start, Start]) -> Any:
    return starters[0]("a")


@pytest.fixture(scope="module")
def door(starters: tuple[Start, Start], host: Any, tmp_path_factory: pytest.TempPathFactory) -> Door:
    """For all tests that can live with what the others do to it."""
    limits = {"header_timeout_s": 1.0, "body_bytes": 10_000_000}
    made = Door(starters[1], host, tmp_path_factory.mktemp("tls"), limits=limits)
    eventually(lambda: made.balancer.status()["backends"][0]["healthy"])
    return made


def test_hosts_are_told_that_the_client_came_by_https(door: Door) -> None:
    client = door.client()
    seen = get(client, "/seen").lower()
    assert b"\r\nx-forwarded-proto: https\r\n" in seen
    client.request("GET", "/seen", headers={"X-Forwarded-Proto": "http"})
    assert b"x-forwarded-proto: http\r\n" not in client.getresponse().read().lower()
    client.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_good_versions_are_spoken(door: Door, version: ssl.TLSVersion) -> None:
    with door.connect(minimum_version=version, maximum_version=version) as connection:
        connection.sendall(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_old_versions_and_plain_text_are_turned_away_and_hurt_nobody(door: Door) -> None:
    steady = door.client()
    with pytest.raises((ssl.SSLError, ConnectionError)), pytest.warns(DeprecationWarning):
        door.connect(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b"200" not in plain.recv(100)
    get(steady)
    steady.close()


def test_who_stalls_in_the_handshake_is_cut_off(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as silent:
        began = time.monotonic()
        assert silent.recv(1) == b""
        assert time.monotonic() - began < 5


def test_bodies_are_the_same_both_ways(door: Door) -> None:
    client = door.client()
    body = hashlib.sha256(b"seed").digest() * 100_000
    client.request("POST", "/echo", body)
    assert hashlib.sha256(client.getresponse().read()).digest() == hashlib.sha256(body).digest()
    client.close()


def test_curl_checks_the_certificate_and_gets_its_answer(door: Door) -> None:
    url = f"https://127.0.0.1:{door.port}/x"
    told = [
        "curl",
        "-sS",
        "--max-time",
        "10",
        "--cacert",
        str(door.pair.certificate),
        "-w",
        "%{http_version}",
        url,
    ]
    assert subprocess.run(told, capture_output=True, text=True).stdout == '{"host": "a"}1.1'
    assert (
        subprocess.run(["curl", "-s", url], capture_output=True).returncode == 60
    )  # not signed by anyone it knows


def test_a_refused_upload_gets_its_answer(door: Door, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * 10_000_001)
    told = ["curl", "-sSk", "--max-time", "10", "-H", "expect:", "-T", str(big), "-w", "%{http_code}"]
    done = subprocess.run([*told, f"https://127.0.0.1:{door.port}/sink"], capture_output=True, text=True)
    assert (done.returncode, done.stdout[-3:]) == (0, "413"), done.stderr


def test_who_asks_for_the_connection_to_end_sees_its_end_at_once(door: Door) -> None:
    with door.connect() as connection:
        connection.sendall(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        began, data = time.monotonic(), b""
        while piece := connection.recv(4096):
            data += piece
        assert data.endswith(b'{"host": "a"}')
        assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("how", ["goodbye", "gone"])
def test_a_client_that_leaves_is_noticed(door: Door, how: str) -> None:
    connection = door.connect()
    connection.sendall(b"GET /slow/5000 HTTP/1.1\r\nhost: a\r\n\r\n")
    eventually(lambda: door.balancer.status()["pools"][0]["in_flight"] == 1)
    if how == "goodbye":
        connection.unwrap().close()  # says that it will send no more, and waits for the same word
    else:
        connection.close()
    eventually(lambda: door.balancer.status()["pools"][0]["in_flight"] == 0, 2.0)


def test_a_new_certificate_is_shown_to_new_clients_and_disturbs_none(door: Door) -> None:
    errors: list[BaseException] = []
    counts = {"kept": 0, "new": 0}
    stop = threading.Event()

    def load(kind: str) -> None:
        client = door.client()
        while not stop.is_set():
            try:
                get(client)
                counts[kind] += 1
                if kind == "new":
                    client.close()
                    client = door.client()
            except (OSError, http.client.HTTPException, AssertionError) as error:
                errors.append(error)
                return
        client.close()

    threads = [threading.Thread(target=load, args=(kind,)) for kind in ("kept", "kept", "new", "new")]
    for thread in threads:
        thread.start()
    try:
        for name in ("second", "third"):
            door.pair.put(name)
            eventually(lambda wanted=name: door.shown() == wanted)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors
    assert min(counts.values()) > 10


def test_a_pair_that_does_not_fit_leaves_the_old_one_in_force(
    balancer: Start, host: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    door = Door(balancer, host, tmp_path)
    door.pair.put("second", only="certificate")
    said = ""

    def complaints() -> int:
        nonlocal said
        said += capfd.readouterr().err
        return said.count("the certificate stays as it was")

    eventually(lambda: complaints() == 1)
    assert "does not belong to the certificate" in said
    assert door.shown() == "first"
    door.balancer.process.send_signal(signal.SIGHUP)  # asking for it does not change that
    eventually(lambda: (complaints() and False) or said.count("does not belong") >= 2)
    assert door.shown() == "first"
    door.pair.put("third")
    eventually(lambda: door.shown() == "third")


def test_after_a_hangup_the_new_certificate_is_shown(door: Door) -> None:
    door.pair.put("second")
    door.balancer.process.send_signal(signal.SIGHUP)
    eventually(lambda: door.shown() == "second", 1.0)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("missing", "the TLS certificate {c} can't be read: No such file or directory"),
        ("empty", "the TLS certificate {c} with the key {k} can't be used: "),
        ("mismatch", "the TLS key {k} does not belong to the certificate {c}"),
        ("encrypted", "the TLS key {k} is encrypted; store it without a password"),
    ],
)
def test_a_balancer_without_a_good_certificate_does_not_start(tmp_path: Path, broken: str, why: str) -> None:
    pair = Pair(tmp_path)
    pair.put("first", password=b"s3cret" if broken == "encrypted" else None)
    if broken == "missing":
        pair.certificate.unlink()
    elif broken == "empty":
        pair.certificate.write_text("")
    elif broken == "mismatch":
        pair.put("second", only="key")
    config = tmp_path / "config.json"
    files = {"certificate": str(pair.certificate), "key": str(pair.key)}
    config.write_text(json.dumps({"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "tls": files}))
    argv = [sys.executable, "-m", "fleet_balancer", "--config", str(config)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"fleet-balancer: {why.format(c=pair.certificate, k=pair.key)}")
