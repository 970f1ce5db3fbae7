#!/usr/bin/env python3
"""Run a command inside a network whose hosts are made by the tests' `ssh_hosts` fixture. Root only.

netns.py run -- python -m pytest --hosts netns tests/hosts     makes the network, runs, takes it away
netns.py up NAME | down NAME                                   the same by hand; FLEET_LAB_NETNS=NAME names it
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fleet_lab.netns import NETWORK_VARIABLE, OUTSIDE_VARIABLE, Network


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["run", "up", "down"])
    parser.add_argument("words", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("network namespaces need root")
    if asked.action != "run":
        if len(asked.words) != 1:
            parser.error(f"{asked.action} needs a name")
        network = Network(asked.words[0])
        network.up() if asked.action == "up" else network.down()
        return 0
    command = asked.words[1:] if asked.words[:1] == ["--"] else asked.words
    if not command:
        parser.error("run needs a command after --")
    network = Network(f"fl{os.getpid()}")
    network.up()
    try:
        # nsenter, not `ip netns exec`: the latter mounts a new /sys and hides /run/netns's own changes.
        argv = ["nsenter", f"--net=/run/netns/{network.name}", *command]
        told = {NETWORK_VARIABLE: network.name, OUTSIDE_VARIABLE: f"/proc/{os.getpid()}/ns/net"}
        return subprocess.run(argv, env={**os.environ, **told}).returncode
    finally:
        network.down()


if __name__ == "__main__":
    sys.exit(main())
