"""Fifty real SSH servers under the real loop: `up` takes little longer than its slowest host, dark racks or not.

All fifty hosts are this one machine, which does what they do themselves on its own few cores: so most of a host's own
time is waiting, as on real machines, where a model loads for minutes. `python -m bench.hosts` prints the figures.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.hosts.rack import rise
from fleet_lab.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]

LOAD_S = 40.0


def test_fifty_hosts_take_half_as_long_again_as_the_slowest_at_most(ssh_hosts: Lab, tmp_path: Path) -> None:
    ssh_hosts(50)
    assert rise(ssh_hosts, tmp_path, LOAD_S).ratio <= 1.5


def test_ten_dark_hosts_slow_the_other_forty_by_a_fifth_at_most(ssh_hosts: Lab, tmp_path: Path) -> None:
    ssh_hosts(40)
    (tmp_path / "bright").mkdir()
    (tmp_path / "dark").mkdir()
    alone = rise(ssh_hosts, tmp_path / "bright", LOAD_S)
    for host in ssh_hosts.hosts:
        host.kill()
        host.start()
    assert rise(ssh_hosts, tmp_path / "dark", LOAD_S, dark=10).took_s <= 1.2 * alone.took_s
