"""A fleet of given hosts, and a stand-in for the agent that can be told to misbehave."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet_lab.host import Host
from fleet_lab.lab import Lab

from fleet_controller.hosts.install.release import Release, ReleaseFile
from fleet_controller.hosts.local import LocalTransport
from fleet_controller.hosts.machines import Machines
from fleet_controller.hosts.ssh.connections import Connections
from fleet_controller.hosts.ssh.transport import SshTransport
from fleet_controller.hosts.transport import Transport
from fleet_controller.spec import FleetSpec, load

STUB_AGENT = """
import json, os, signal, socket, sys, time

config = json.load(open(sys.argv[sys.argv.index("--config") + 1]))
options = config["models"][0]["options"]
print("stub agent", config["action_id"], flush=True)
if options.get("crash"):
    sys.exit("no such device: cuda:9")
if options.get("ignore_term"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if options.get("double_fork") and os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
if options.get("worker") and os.fork() == 0:
    os.environ.clear()
    os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(601)"], {})
if options.get("hidden") and os.fork() == 0:
    # Leaves everything by which it could be known: session, environment, folder, open files.
    os.setsid()
    if os.fork() == 0:
        os.chdir("/")
        os.closerange(0, 1000)
        code = "import time; held = %s; time.sleep(602)"
        code %= "open(%r)" % options["hidden_gpu"] if options.get("hidden_gpu") else "None"
        os.execve(sys.executable, [sys.executable, "-c", code], {})
    os._exit(0)
if options.get("gpu"):
    held = open(options["gpu"])
if options.get("eats"):
    eaten = [bytes([1]) * 1024 * 1024 for _ in range(options["eats"])]
host, _, port = config["listen"].rpartition(":")
server = socket.create_server((host, int(port)))
if options.get("silent"):
    time.sleep(600)
stat = open("/proc/self/stat").read()
run = {
    "pid": os.getpid(),
    "start_ticks": int(stat[stat.rindex(")") + 2 :].split()[19]),
    "boot_id": open("/proc/sys/kernel/random/boot_id").read().strip(),
    "port": server.getsockname()[1],
    "action_id": config["action_id"],
    "release": config["release"],
}
with open(config["run_file"] + ".new", "w") as file:
    json.dump(run, file)
os.replace(config["run_file"] + ".new", config["run_file"])
while True:
    server.accept()[0].close()
    if options.get("bursts"):
        eaten = [bytes([1]) * 1024 * 1024 for _ in range(options["bursts"])]
"""


def file(path: str, content: bytes) -> ReleaseFile:
    return ReleaseFile(path, content, len(content), hashlib.sha256(content).hexdigest(), False)


@pytest.fixture
def stub_release() -> Release:
    """A release whose agent is the stand-in above; it needs nothing installed."""
    files = (
        file("lib/fleet_agent/__init__.py", b""),
        file("lib/fleet_agent/__main__.py", STUB_AGENT.encode()),
        file("models/tiny/model.py", b"class Tiny: ...\n"),
    )
    key = hashlib.sha256("".join(one.sha256 for one in files).encode()).hexdigest()[:20]
    return Release(key, files, (), ())


FleetOf = Callable[..., FleetSpec]


@pytest.fixture
def fleet_of(tmp_path: Path) -> FleetOf:
    """`fleet_of([entry, ...])`: a FleetSpec of these `hosts:` entries and one model, whose options may be given."""

    def make(entries: list[dict[str, Any]], **options: Any) -> FleetSpec:
        source = tmp_path / "tiny"
        source.mkdir(exist_ok=True)
        (source / "model.py").write_text("class Tiny: ...\n")
        names = [entry["name"] for entry in entries]
        model = {"name": "tiny", "source": str(source), "entrypoint": "model:Tiny", "options": options}
        scaling = {"min_servers": 1, "max_servers": len(names)}
        pool = {"name": "default", "hosts": names, "models": ["tiny"], "scaling": scaling}
        path = tmp_path / "fleet.yaml"
        # JSON is YAML.
        path.write_text(
            json.dumps(
                {"fleet": "test", "hosts": entries, "models": [model], "pools": [pool]}, ensure_ascii=False
            )
        )
        return load(path)

    return make


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The controller's state folder."""
    return tmp_path / "state"


@pytest.fixture
def machines_of(fleet_of: FleetOf, state: Path) -> Iterator[Callable[..., Machines]]:
    """`machines_of(hosts)`: Machines for hosts of the lab; closed after the test."""
    made: list[Machines] = []

    def make(hosts: list[Host], ssh: dict[str, Any] | None = None, **options: Any) -> Machines:
        entries = [host.entry() for host in hosts]
        for entry in entries:
            entry["ssh"] = {**entry["ssh"], **(ssh or {})}  # type: ignore[dict-item]
        machines = Machines(fleet_of(entries, **options), state)
        made.append(machines)
        return machines

    yield make
    for machines in made:
        machines.close()


@pytest.fixture
def host(ssh_hosts: Lab) -> Host:
    return ssh_hosts(1)[0]


@pytest.fixture(params=["ssh", "local"])
def transport(
    request: pytest.FixtureRequest, ssh_hosts: Lab, fleet_of: Callable[..., FleetSpec]
) -> Iterator[Transport]:
    """A host over SSH, and this machine: what holds for one holds for the other."""
    if request.param == "local":
        yield LocalTransport("here", 20)
        return
    [host] = ssh_hosts(1)
    connections = Connections(fleet_of([host.entry()]))
    yield SshTransport(connections.to_host("h1"), 20)
    connections.close()
