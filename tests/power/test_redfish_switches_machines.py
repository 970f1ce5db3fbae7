"""sushy-tools' emulator as the BMC, over HTTPS; and small servers of our own for what no honest BMC does."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fleet_lab.peers import free_port

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machine import Machine

MachineOf = Callable[..., Machine]
PASSWORD = "c4nary-0f-redfish"
QUICK = {"boot_timeout": "4s", "off_timeout": "4s", "off_grace": "3s", "call_timeout": "3s"}


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed one for 127.0.0.1, as BMCs have: (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bmc")])
    now = datetime.datetime.now(datetime.UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "bmc.pem", folder / "bmc.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    return files


class Emulator:
    def __init__(self, folder: Path) -> None:
        bcrypt = pytest.importorskip(
            "bcrypt", reason="sushy-tools is not installed: pip install 'fleetctl[dev]'"
        )
        pytest.importorskip("sushy_tools", reason="sushy-tools is not installed: pip install 'fleetctl[dev]'")
        folder.mkdir()
        self.certificate, key = certificate(folder)
        self.password = folder / "password"
        self.password.write_text(PASSWORD)
        self.password.chmod(0o600)
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        (folder / "users").write_text(f"root:{hashed}\n")
        (folder / "emulator.conf").write_text(
            f'SUSHY_EMULATOR_AUTH_FILE = "{folder}/users"\nSUSHY_EMULATOR_STATE_DIR = "{folder}"\n'
        )
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        argv = [sys.executable, str(Path(__file__).with_name("emulator.py")), "--fake", "--config"]
        argv += [str(folder / "emulator.conf"), "-i", "127.0.0.1", "-p", str(port)]
        argv += ["--ssl-certificate", str(self.certificate), "--ssl-key", str(key)]
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(argv, stdout=self._log, stderr=self._log, cwd=folder)
        until = time.monotonic() + 40
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                log = (folder / "log").read_text()[-2000:]
                assert self._process.poll() is None and time.monotonic() < until, log
                time.sleep(0.05)

    def power(self, **more: Any) -> dict[str, Any]:
        login = {"user": "root", "password_file": str(self.password), "ca_file": str(self.certificate)}
        return {"driver": "redfish", "bmc": self.url, **login, **QUICK, **more}

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    made = Emulator(tmp_path_factory.mktemp("redfish") / "bmc")
    yield made
    made.close()


def test_a_real_emulator_is_switched_on_and_off_over_checked_tls(
    emulator: Emulator, machine_of: MachineOf
) -> None:
    machine = machine_of(emulator.power())
    assert machine.powered() is False
    assert machine.power_on() is True
    assert machine.power_on() is False
    assert machine.power_status().state == "on"
    assert machine.power_off() is True
    assert machine.power_off() is False


def test_a_bmc_whose_certificate_nobody_vouches_for_is_told_nothing(
    emulator: Emulator, machine_of: MachineOf
) -> None:
    power = emulator.power()
    del power["ca_file"]
    with pytest.raises(HostFailure, match=r"(?i)certificate verify failed") as caught:
        machine_of(power).power_on()
    assert caught.value.kind == "power"
    assert machine_of({**power, "insecure": True}).powered() is False


def test_a_wrong_password_is_said_and_not_shown(
    emulator: Emulator,
    machine_of: MachineOf,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("BMC", "wr0ng-c4nary")
    power = emulator.power(password_env="BMC")
    del power["password_file"]
    with pytest.raises(HostFailure, match="does not let root in") as caught:
        machine_of(power).power_on()
    assert "c4nary" not in str(caught.value)
    assert machine_of(emulator.power()).powered() is False
    assert "c4nary" not in caplog.text


def test_a_system_that_the_bmc_does_not_have_is_named(emulator: Emulator, machine_of: MachineOf) -> None:
    with pytest.raises(HostFailure, match=r"/redfish/v1/Systems/nosuch"):
        machine_of(emulator.power(system="/redfish/v1/Systems/nosuch")).power_on()


class Odd(ThreadingHTTPServer):
    """A BMC that does as it likes. `behave` is what it does wrong; `orders` are all that it was given."""

    daemon_threads = True

    def __init__(self, behave: str = "", state: str | None = "Off") -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.behave = behave
        self.state: Any = state
        self.offers = ["On", "ForceOff", "GracefulShutdown"]
        self.orders: list[str] = []
        self.end = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who hangs up on us has had enough."""


class _Answers(BaseHTTPRequestHandler):
    server: Odd

    def log_message(self, *words: Any) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        here = "/redfish/v1/Systems"
        if self.server.behave == "hangs":
            self.server.end.wait(20)
            return
        body: Any = {"@odata.id": self.path, "Id": "1", "Name": "odd", "UUID": "x", "RedfishVersion": "1.6.0"}
        if self.path.rstrip("/") == "/redfish/v1":
            body |= {"Systems": {"@odata.id": here}}
        elif self.path == here:
            body |= {"Members": [{"@odata.id": f"{here}/1"}]}
        else:
            reset = {
                "target": f"{here}/1/Actions/Reset",
                "ResetType@Redfish.AllowableValues": self.server.offers,
            }
            body |= {"PowerState": self.server.state, "Actions": {"#ComputerSystem.Reset": reset}}
        self._say(200, [body] if self.server.behave == "babbles" else body)

    def do_POST(self) -> None:
        server = self.server
        order = json.loads(self.rfile.read(int(self.headers["content-length"])))["ResetType"]
        server.orders.append(order)
        if server.behave == "hangs on orders":
            server.end.wait(20)
        elif server.behave == "hangs up on orders":
            self.connection.close()
        elif server.behave == "fails":
            self._say(500, {"error": {"message": "internal SYS518 error"}})
        else:
            deaf = server.behave == "lies" or (
                server.behave == "ignores the soft way" and order != "ForceOff"
            )
            if not deaf:
                server.state = "On" if order == "On" else "Off"
            self._say(204, None)

    def _say(self, status: int, body: Any) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        for at in range(len(data) if self.server.behave == "trickles" else 0):
            self.wfile.write(data[at : at + 1])
            if self.server.end.wait(0.4):
                return
        if self.server.behave != "trickles":
            self.wfile.write(data)


@pytest.fixture
def odd() -> Iterator[Odd]:
    server = Odd()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.end.set()
    server.shutdown()
    thread.join()
    server.server_close()


def power_of(odd: Odd, **more: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{odd.server_address[1]}"
    return {"driver": "redfish", "bmc": url, "insecure": True, **QUICK, "call_timeout": "1s", **more}


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        ("lies", "does not say that it is on after 1.5 s"),
        ("hangs on orders", "does not say that it is on after 1.5 s; .*no answer within 1 s"),
        ("hangs up on orders", "does not say that it is on after 1.5 s; "),
        ("fails", "does not say that it is on at once; .*SYS518"),
    ],
)
def test_an_order_is_given_once_whatever_becomes_of_it(
    odd: Odd, machine_of: MachineOf, behave: str, said: str
) -> None:
    odd.behave = behave
    with pytest.raises(HostFailure, match=said) as caught:
        machine_of(power_of(odd, boot_timeout="1500ms")).power_on()
    assert caught.value.kind == "power"
    time.sleep(0.3)
    assert odd.orders == ["On"]


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        ("hangs", "gave no answer within 0.5 s"),
        ("trickles", "gave no answer within 0.5 s"),
        ("babbles", "answers what is no Redfish"),
    ],
)
def test_who_is_not_understood_is_not_taken_for_off(
    odd: Odd, machine_of: MachineOf, behave: str, said: str
) -> None:
    odd.behave = behave
    machine = machine_of(power_of(odd, call_timeout="500ms"))
    began = time.monotonic()
    assert machine.power_status().state == "unknown"
    for act in (machine.powered, machine.power_on, machine.power_off):
        with pytest.raises(HostFailure, match=said) as caught:
            act()
        assert caught.value.kind == "power"
    assert time.monotonic() - began < 8.0
    assert odd.orders == []


@pytest.mark.parametrize("state", [None, "Paused", "Melting"])
def test_a_power_state_that_says_nothing_is_unknown(
    odd: Odd, machine_of: MachineOf, state: str | None
) -> None:
    odd.state = state
    with pytest.raises(HostFailure, match="whether it is on is unknown"):
        machine_of(power_of(odd)).power_on()
    assert odd.orders == []


def test_a_machine_that_ignores_the_soft_way_is_switched_off_hard(odd: Odd, machine_of: MachineOf) -> None:
    odd.state, odd.behave = "On", "ignores the soft way"
    assert machine_of(power_of(odd, off_grace="300ms")).power_off() is True
    assert odd.orders == ["GracefulShutdown", "ForceOff"]


def test_a_bmc_without_a_soft_way_uses_the_hard_one(odd: Odd, machine_of: MachineOf) -> None:
    odd.state, odd.offers = "On", ["On", "ForceOff"]
    assert machine_of(power_of(odd)).power_off() is True
    assert odd.orders == ["ForceOff"]


def test_what_is_on_its_way_is_waited_for_and_not_ordered_again(odd: Odd, machine_of: MachineOf) -> None:
    machine = machine_of(power_of(odd))
    for before, after, act in (
        ("PoweringOn", "On", machine.power_on),
        ("PoweringOff", "Off", machine.power_off),
    ):
        odd.state = before
        threading.Timer(0.4, setattr, (odd, "state", after)).start()
        assert act() is True
    assert odd.orders == []


def test_a_bmc_that_is_not_there_is_said(machine_of: MachineOf) -> None:
    power = {"driver": "redfish", "bmc": f"https://127.0.0.1:{free_port()}", **QUICK}
    with pytest.raises(HostFailure, match=r"(?i)connection refused") as caught:
        machine_of(power).power_on()
    assert caught.value.kind == "power"


def test_without_the_library_it_is_said_what_to_install(
    machine_of: MachineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "fleet_controller.hosts.power.redfish", raising=False)
    monkeypatch.setitem(sys.modules, "sushy", None)
    with pytest.raises(
        HostFailure, match=r"needs the Python package sushy.*pip install 'fleetctl\[power\]'"
    ) as caught:
        machine_of({"driver": "redfish", "bmc": "https://127.0.0.1"}).power_on()
    assert caught.value.kind == "config"


def test_ssl_is_what_it_says(emulator: Emulator) -> None:
    """The emulator really speaks TLS: the tests above would pass over plain HTTP too."""
    port = int(emulator.url.rpartition(":")[2])
    assert ssl.get_server_certificate(("127.0.0.1", port)).strip() == emulator.certificate.read_text().strip()
