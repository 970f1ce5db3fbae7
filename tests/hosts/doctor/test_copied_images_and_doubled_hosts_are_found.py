from __future__ import annotations

import pytest

from fleet_controller.hosts.doctor.twins import twins


@pytest.fixture
def three(chart_of):
    def make(second: dict[str, object] | None = None, **address: object):
        first = {"machine_id": "a" * 32, "boot_id": "b1", "host_keys": ["k1"]}
        other = {"machine_id": "c" * 32, "boot_id": "b2", "host_keys": ["k2"]}
        third = {"machine_id": "d" * 32, "boot_id": "b3", "host_keys": ["k3"]}
        return [
            chart_of("h1", identity=first, spec={"address": "10.0.0.1"}),
            chart_of("h2", identity=other | (second or {}), spec={"address": "10.0.0.2"} | address),
            chart_of("h3", identity=third, spec={"address": "10.0.0.3"}),
        ]

    return make


def test_three_different_machines_have_nothing_in_common(three):
    assert twins(three()) == {}


def test_a_copied_machine_id_is_told_of_both_and_never_mended(three):
    found = twins(three({"machine_id": "a" * 32}))
    assert set(found) == {"h1", "h2"}
    [finding] = found["h1"]
    assert finding.severity == "warning" and "h2 has the same machine-id" in finding.what
    assert "systemd-machine-id-setup" in finding.fix and finding.mend is None


def test_a_copied_host_key_is_a_problem(three):
    found = twins(three({"host_keys": ["k9", "k1"]}))
    assert [f.severity for f in found["h2"]] == ["problem"]
    assert "h1 has the same SSH host key" in found["h2"][0].what


def test_one_machine_under_two_addresses_is_no_copy(three):
    found = twins(three({"machine_id": "a" * 32, "boot_id": "b1", "host_keys": ["k1"]}))
    [finding] = found["h1"]
    assert "is the same machine" in finding.what


def test_two_names_of_one_address_are_a_problem(three):
    found = twins(three({"machine_id": "a" * 32, "boot_id": "b1", "host_keys": ["k1"]}, address="10.0.0.1"))
    assert [f.severity for f in found["h2"]] == ["problem"]
    assert "h1 has the same address, 10.0.0.1 port 22" in found["h2"][0].what


def test_hosts_of_which_nothing_is_known_are_no_twins(chart_of):
    ids = {"machine_id": "", "boot_id": "", "host_keys": []}
    charts = [chart_of(f"h{n}", identity=ids, spec={"address": f"10.0.0.{n}"}) for n in (1, 2)]
    assert twins(charts) == {}
