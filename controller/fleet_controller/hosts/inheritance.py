"""What the programs that we start on this machine inherit of our environment: all of it but other programs' passwords.

What is left is what the operator's own `ssh` and `pip` would see: a `Match exec`, a proxy or a keyring reads what it
likes there.
"""

from __future__ import annotations

import os

from fleet_controller.spec import FleetSpec


def passwords(spec: FleetSpec) -> frozenset[str]:
    """The variables in which fleet.yaml says that passwords stand."""
    return frozenset(name for host in spec.hosts if (name := host.power.password_env))


def inherited(withheld: frozenset[str]) -> dict[str, str]:
    """Our environment as it is now, without the `withheld` variables."""
    return {name: value for name, value in os.environ.items() if name not in withheld}
