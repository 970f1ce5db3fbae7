"""Does the safe mends of `fleetctl doctor --fix`.

What is safe: it can be done again without harm, it is undone easily or takes nothing away that anybody misses, and it
stops nothing that runs. A machine-id, a driver, a host key that changed, other people's processes, the clock and a
firewall are the operator's.
"""

from __future__ import annotations

import os
from pathlib import Path

from fleet_controller.hosts.doctor.report import TRUST, Mend
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machines import Machines
from fleet_controller.hosts.ssh import keys
from fleet_controller.spec import FleetSpec


def do(mend: Mend, spec: FleetSpec, machines: Machines, state: Path) -> str:
    """What was done. Raises HostFailure, or OSError for this machine's files."""
    if mend.name == "key-mode":
        return _close_keys(spec)
    if mend.name == "state-mode":
        state.chmod(0o700)
        return f"{state} is for you alone"
    if mend.name == TRUST:
        return _trust(spec, mend.host)
    return machines.machine(mend.host).mend(mend.name)


def _close_keys(spec: FleetSpec) -> str:
    """Private keys and password files of ours that others may read are closed to them; never opened further."""
    closed = []
    keys_of = {host.ssh.identity_file for host in spec.hosts if not host.is_local}
    words_of = {host.power.password_file for host in spec.hosts}
    for path in sorted(path for path in keys_of | words_of if path is not None and path.exists()):
        info = path.stat()
        if info.st_mode & 0o077 and info.st_uid == os.geteuid():
            path.chmod(info.st_mode & 0o700)
            closed.append(str(path))
    return f"closed {', '.join(closed)}" if closed else "all are closed already"


def _trust(spec: FleetSpec, host: str) -> str:
    noted = keys.trust(spec, [host])
    if not noted:
        raise HostFailure(
            host,
            "host-key-unknown",
            "it shows no key that could be noted down now",
            "Try again when it is reached",
        )
    return "; ".join(
        f"noted {key.key_type} {key.fingerprint} of {key.host} in {key.known_hosts}" for key in noted
    )
