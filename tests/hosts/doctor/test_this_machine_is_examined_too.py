from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_controller.hosts.doctor import desk, here
from fleet_controller.hosts.doctor.chart import Clock
from fleet_controller.hosts.doctor.surroundings import Kept, Port, Program, Surroundings

WELL = Surroundings(
    fleet_file=Kept("/f/fleet.yaml", "fleet.yaml", 0o644),
    secrets=(Kept("/k/id", "the SSH key", 0o600),),
    known_hosts=(Kept("/k/known_hosts", "known_hosts", 0o644),),
    synchronized=True,
    state=Kept("/f/.fleetctl/f", "the state folder", 0o700),
    state_there="/f/.fleetctl/f",
    state_free=100 << 30,
    ports=(Port("127.0.0.1:8080", "listen"),),
)

ILL = [
    ({"fleet_file": Kept("/f/fleet.yaml", "", 0o666)}, "fleet-file", "warning", "chmod go-w", None),
    ({"secrets": (Kept("/k/id", "key", 0o644),)}, "keys", "problem", "chmod 600 /k/id", "key-mode"),
    ({"secrets": (Kept("/k/id", "key", 0o644, False),)}, "keys", "problem", "chmod 600 /k/id", None),
    ({"secrets": (Kept("/k/id", "key", trouble="it does not exist"),)}, "keys", "problem", "ls -l", None),
    ({"known_hosts": (Kept("/k/kh", "", 0o666),)}, "known-hosts", "problem", "chmod 644", None),
    ({"unknown_hosts": {"/k/known_hosts": ("h7",)}}, "known-hosts", "warning", "--trust-on-first-use", None),
    ({"needs_agent": ("h1",), "agent_trouble": "no agent"}, "ssh-agent", "warning", "ssh-add", None),
    ({"state": Kept("/s", "", 0o755)}, "state", "problem", "chmod 700", "state-mode"),
    ({"state_free": 1 << 20}, "state", "problem", "df -h", None),
    ({"state_free": 1 << 30}, "state", "warning", "df -h", None),
    ({"state_free": None}, "state", "unknown", "", None),
    ({"journal_trouble": "row 3 is damaged"}, "state", "problem", "state rebuild", None),
    (
        {"programs": (Program("virsh", "apt-get install x", ("h1",), False),)},
        "programs",
        "problem",
        "apt-get",
        None,
    ),
    ({"ports": (Port("0.0.0.0:80", "listen", "taken"),)}, "ports", "problem", "sport = :80", None),
    ({"synchronized": False}, "clock", "warning", "set-ntp", None),
    ({"synchronized": None}, "clock", "unknown", "", None),
]


def test_a_machine_on_which_all_is_well():
    assert {finding.severity for finding in here.judge(WELL)} == {"ok", "skipped"}


@pytest.mark.parametrize(("seen", "check", "severity", "fix", "mend"), ILL)
def test_what_is_wrong_here_is_said(seen, check, severity, fix, mend):
    found = [f for f in here.judge(replace(WELL, **seen)) if f.severity not in ("ok", "skipped")]
    assert [(f.check, f.severity, f.mend) for f in found] == [(check, severity, mend)]
    assert fix in found[0].fix


def test_where_most_hosts_disagree_it_is_our_clock_that_is_wrong(chart_of):
    charts = [
        chart_of(f"h{n}", clock_seen=Clock(ahead, 0.1)) for n, ahead in enumerate((-9.0, -9.2, 0.1, -8.8))
    ]
    [found] = [f for f in here.judge(WELL, charts) if f.check == "clock"]
    assert found.severity == "warning" and "8.9 s ahead of that of most hosts" in found.what


def test_a_host_that_was_reached_is_known_in_another_way(chart_of):
    seen = replace(WELL, unknown_hosts={"/k/known_hosts": ("h1",)})
    assert all(f.severity in ("ok", "skipped") for f in here.judge(seen, [chart_of("h1")]))


def test_a_taken_port_an_open_key_and_a_stranger_are_seen(fleet_of, tmp_path: Path):
    key, known = tmp_path / "id", tmp_path / "known_hosts"
    key.write_text("secret")
    key.chmod(0o640)
    known.write_text("")
    ssh = {"identity_file": str(key), "known_hosts": str(known)}
    spec = fleet_of([{"name": "h1", "address": "10.9.9.9", "ssh": ssh}])
    with socket.create_server(("127.0.0.1", 0)) as server:
        listen = f"127.0.0.1:{server.getsockname()[1]}"
        balancer = spec.balancer.model_copy(update={"listen": listen, "admin": "127.0.0.1:0"})
        seen = desk.look(spec.model_copy(update={"balancer": balancer}), ["h1"], tmp_path / "state", False)
    assert [(file.mode, file.ours) for file in seen.secrets] == [(0o640, True)]
    assert seen.unknown_hosts == {str(known): ("h1",)}
    assert [port.holder for port in seen.ports] == ["another program listens there", ""]
    assert seen.state is None and seen.state_there == str(tmp_path) and seen.state_free
    assert seen.fleet_file.mode == (spec.source.stat().st_mode & 0o7777)
    assert os.environ.get("SSH_AUTH_SOCK") or seen.agent_keys is None
