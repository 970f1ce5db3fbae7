"""How the balancer's process is configured: fleet.yaml as the file that it starts with and reads again on SIGHUP."""

from __future__ import annotations

import os
from pathlib import Path

from fleet_controller.spec import FleetSpec
from fleet_controller.statefolder import StateFolder
from fleet_wire.balancer import AccessLog, BalancerConfig, BalancerLimits, TlsFiles


def config_file(folder: StateFolder) -> Path:
    return folder.path / "balancer.config.json"


def config(spec: FleetSpec, folder: StateFolder) -> BalancerConfig:
    """What `balancer:` in fleet.yaml says of the process. Makes the admin token where there is none."""
    balancer, limits, timeouts = spec.balancer, spec.balancer.limits, spec.balancer.timeouts
    tls, access_log = balancer.tls, balancer.access_log
    return BalancerConfig(
        listen=balancer.listen,
        admin=balancer.admin,
        engine=balancer.engine,
        workers=balancer.workers,
        token_file=str(folder.token_file("balancer")),
        state_file=str(folder.path / "balancer.state.json"),
        keys_required=balancer.keys == "required",
        tls=TlsFiles(certificate=str(tls.certificate), key=str(tls.key)) if tls else None,
        access_log=AccessLog(path=str(access_log.path), sample=access_log.sample) if access_log else None,
        limits=BalancerLimits(
            head_bytes=limits.head,
            target_bytes=limits.target,
            fields=limits.fields,
            body_bytes=limits.body,
            header_timeout_s=timeouts.header,
            body_timeout_s=timeouts.body,
            idle_timeout_s=timeouts.idle,
            connect_timeout_s=timeouts.connect,
        ),
    )


# What a running balancer can't take up: where clients and the controller find it, and what program it is.
FIXED = ("listen", "admin", "engine")


def write(wanted: BalancerConfig, folder: StateFolder) -> list[str]:
    """Put `wanted` into the state folder, 0600; the fields that differ from what was there. Raises OSError."""
    path = config_file(folder)
    changed = differences(read(folder), wanted)
    if changed:
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(wanted.model_dump_json(indent=2))
        fresh.replace(path)
    return changed


def differences(before: BalancerConfig | None, after: BalancerConfig) -> list[str]:
    """The fields that are not the same; all of them where there was nothing."""
    names = [name for name in BalancerConfig.model_fields if name != "schema_"]
    return [name for name in names if before is None or getattr(before, name) != getattr(after, name)]


def read(folder: StateFolder) -> BalancerConfig | None:
    """What was written last; None where that is nothing that can be read."""
    try:
        return BalancerConfig.model_validate_json(config_file(folder).read_bytes())
    except (OSError, ValueError):
        return None
