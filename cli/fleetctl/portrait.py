"""Everything known about one host: what fleet.yaml says, what the journal has, what it says itself now."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fleet_controller.records import HostRecord
from fleet_controller.spec import HostSpec
from fleetctl.fleet import Fleet

if TYPE_CHECKING:
    from fleet_controller.journal import Journal
    from fleet_wire.agent import AgentStatus

SCHEMA = "fleetctl/host/v1"
# Of events that are read to find those of one host.
SEARCHED = 20_000
ASKED_S = 30.0


def draw(
    fleet: Fleet, host: HostSpec, journal: Journal | None, now: float, events: int, ask: bool
) -> dict[str, Any]:
    """`fleetctl hosts describe -o json`; `now` in Unix seconds. `ask`: also ask its agent and its power control."""
    known = journal.hosts() if journal is not None else {}
    record = known.get(host.name)
    return {
        "schema": SCHEMA,
        "fleet": fleet.spec.fleet,
        "name": host.name,
        "at": now,
        **_written(fleet, host),
        "state": _state(record, now),
        "learned": _learned(record),
        "open_actions": _actions(journal, host.name, now),
        "events": _events(journal, host.name, events),
        **(_asked(fleet, host, record) if ask else {"agent": None, "power_now": None}),
    }


def _written(fleet: Fleet, host: HostSpec) -> dict[str, Any]:
    """What fleet.yaml says. Nothing of passwords, not even where they are."""
    ssh, power = host.ssh, host.power
    pools = fleet.spec.pools_of(host.name)
    own = str(fleet.folder.path / "hosts" / host.name)
    return {
        "address": host.address,
        "zone": host.zone,
        "labels": dict(host.labels),
        "pools": [{"name": pool.name, "models": list(pool.models)} for pool in pools],
        "price_per_hour": host.price_per_hour,
        "watts": host.watts,
        "speed": host.speed,
        "spot": host.spot,
        "protected": host.protect,
        "device_memory_bytes": host.device_memory_bytes,
        "ssh": None
        if host.is_local
        else {
            "user": ssh.user,
            "port": ssh.port,
            "jump": ssh.jump,
            "identity_file": None if ssh.identity_file is None else str(ssh.identity_file),
            "known_hosts": str(ssh.known_hosts),
        },
        "power": {
            "driver": power.driver,
            "via": power.via,
            "bmc": power.bmc,
            "domain": power.domain if power.driver == "libvirt" else None,
            "mac": power.mac,
            "group": power.group,
        },
        "agent_spec": {"listen": host.bind_address, "port": host.agent.port, "device": host.agent.device},
        "install": {
            "directory": own if host.is_local else host.install.directory,
            "python": host.install.python,
            "interpreter": host.install.interpreter,
        },
    }


def _state(record: HostRecord | None, now: float) -> dict[str, Any] | None:
    """None: the journal has never heard of it."""
    if record is None:
        return None
    return {
        "state": record.state.value,
        "since_s": max(0.0, now - record.since) if record.since else None,
        "reason": record.reason,
        "error": record.error,
        "pool": record.pool,
        "release": record.release,
        "action_id": record.action_id,
        "agent_port": record.agent_port,
        "cordoned": record.cordoned,
        "failures": record.failures,
        "quarantined": record.quarantine is not None,
        "quarantine": None if record.quarantine is None else record.quarantine.value,
        "retry_in_s": max(0.0, record.retry_at - now) if record.retry_at else None,
    }


def _learned(record: HostRecord | None) -> dict[str, float | None]:
    """How long its last start took, and of that booting and all that came after."""
    startup = None if record is None else record.startup_s
    boot = None if record is None else record.boot_s
    load = None if startup is None else max(0.0, startup - (boot or 0.0))
    return {"startup_s": startup, "boot_s": boot, "load_s": load}


def _actions(journal: Journal | None, name: str, now: float) -> list[dict[str, Any]]:
    found = journal.open_actions() if journal is not None else []
    return [
        {"id": one.id, "kind": one.kind, "reason": one.reason, "age_s": max(0.0, now - one.created_at)}
        for one in found
        if one.host == name
    ]


def _events(journal: Journal | None, name: str, most: int) -> list[dict[str, Any]]:
    """The last ones, oldest first."""
    found = journal.events(limit=SEARCHED) if journal is not None else []
    mine = [event for event in found if event.host == name][-most:]
    return [
        {"at": one.at, "kind": one.kind, "reason": one.reason, "error": one.data.get("error")} for one in mine
    ]


def _asked(fleet: Fleet, host: HostSpec, record: HostRecord | None) -> dict[str, Any]:
    """What its agent and its power control say now, both at once."""
    # Not at the top: they bring paramiko and urllib3.
    from fleet_controller.hosts.machines import Machines
    from fleet_controller.observe import Observer, Target

    with Machines(fleet.spec, fleet.folder.path) as machines, ThreadPoolExecutor(2) as threads:
        machine = machines.machine(host.name)
        power = threads.submit(machine.power_status)
        agent: Future[Any] | None = None
        port = None if record is None else record.agent_port
        url = machine.agent_url(port) if port else None
        if url is not None and fleet.folder.has_token(f"host-{host.name}"):
            target = Target(url, fleet.folder.token(f"host-{host.name}"))
            agent = threads.submit(Observer(threads).ask, target)
        report = None if agent is None else agent.result(ASKED_S)
        reading = power.result()
    said: dict[str, Any] | None = None
    if report is not None:
        said = {"url": url, "error": report.error, **_status(report.status)}
    return {"agent": said, "power_now": {"state": reading.state, "reason": reading.reason}}


def _status(status: AgentStatus | None) -> Mapping[str, Any]:
    if status is None:
        return {"state": None}
    return {
        "state": status.state,
        "release": status.release,
        "started_at": status.started_at,
        "models": [
            {"name": m.name, "version": m.version, "ready": m.ready, "error": m.error}
            for m in (*status.models, *status.beside)
        ],
        "in_flight": status.in_flight,
        "queued": status.queued,
        "completed": status.completed,
        "errors": status.errors,
        "capacity_rps": status.capacity_rps,
        "device": status.device,
        "device_memory": status.device_memory.model_dump(mode="json"),
        "devices": [
            {
                "name": device.name,
                "uuid": device.uuid,
                "health": device.health,
                "reason": device.reason,
                "temperature_c": device.temperature_c,
                "power_w": device.power_w,
                "throttled_by": device.throttled_by,
            }
            for device in status.devices
        ],
    }
