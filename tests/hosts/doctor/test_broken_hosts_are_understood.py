from __future__ import annotations

import os
import socket
import time

import pytest
from fleet_lab import accounts, nvidia
from fleet_lab.host import free_port, make_key

from fleet_controller.hosts.doctor.finding import Severity
from fleet_controller.hosts.doctor.report import mends, still
from fleet_controller.hosts.parcel import parcel


def bad(findings):
    return [finding for finding in findings if finding.severity is Severity.PROBLEM]


def test_a_host_that_is_well(host, examined, of):
    report = examined([host])
    [told] = report.hosts
    assert told.reached and not bad(told.findings), bad(told.findings)
    for check in ("ssh", "sftp", "python", "disk", "network", "driver", "os"):
        assert of(report, "h1", check)[0].severity in ("ok", "skipped"), of(report, "h1", check)
    assert report.exit_code() == 0
    assert not list(host.home.rglob("*")), "looking left something behind"


def test_each_broken_host_is_told_apart(ssh_hosts, examined, of):
    _, keyless, changed, pythonless, silent = hosts = ssh_hosts(5)
    (keyless.folder / "authorized_keys").write_text("")
    changed.rekey()
    pythonless.without_python()
    silent.kill()
    report = examined(hosts, python="python3")
    assert bad(of(report, keyless.name, "ssh"))[0].what.startswith("it does not accept the login")
    assert "the host key changed" in bad(of(report, changed.name, "ssh"))[0].what
    assert "ssh-keygen -R" in bad(of(report, changed.name, "ssh"))[0].fix
    assert of(report, changed.name, "ssh")[0].mend is None
    assert of(report, pythonless.name, "ssh")[0].severity is Severity.OK
    assert bad(of(report, pythonless.name, "python"))
    assert "refuses the connection" in bad(of(report, silent.name, "ssh"))[0].what
    assert [h.reached for h in report.hosts] == [True, False, False, True, False]
    assert report.exit_code() == 3


def test_no_host_reached_is_4(ssh_hosts, examined):
    hosts = ssh_hosts(2)
    for host in hosts:
        host.kill()
    assert examined(hosts).exit_code() == 4


def test_a_silent_host_delays_no_other(ssh_hosts, examined):
    hosts = ssh_hosts(2)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections, and never greets
        hosts[1].kill()
        hosts[1].port = mute.getsockname()[1]
        report = examined(hosts, ssh={"connect_timeout": "2s"})
    quick, slow = report.hosts
    assert quick.reached and not slow.reached
    assert quick.seconds < slow.seconds and 1.5 < slow.seconds < 6


@pytest.mark.slow
def test_files_that_cannot_be_copied_are_told(host, examined, of):
    host.noisy_files()
    [found] = of(examined([host]), "h1", "sftp")
    assert found.severity is Severity.PROBLEM


def test_a_full_disk_is_told(host, examined, of):
    if os.geteuid() != 0:
        pytest.skip("a small disk of its own needs root")
    host.with_full_disk(1 << 20)
    [found] = bad(of(examined([host]), "h1", "disk"))
    assert "free in" in found.what and "df -h" in found.fix


@pytest.mark.slow
def test_sshd_that_lets_few_in_is_told(ssh_hosts, examined, of):
    [host] = ssh_hosts(1)
    host.max_startups = "2:50:3"
    host.restart_sshd()
    [found] = of(examined([host]), "h1", "ssh-limits")
    assert "only 2 logins" in found.what


def test_who_has_the_agents_port_is_named(host, examined, of):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        [found] = bad(of(examined([host], agent={"port": port}), "h1", "port"))
    assert f"port {port}" in found.what and f"pid {os.getpid()}" in found.what


def test_the_agents_port_is_tried_from_here(host, examined, of):
    port = free_port("127.0.0.1")
    [found] = of(examined([host], agent={"port": port}), "h1", "door")
    assert found.severity is Severity.OK and "the host answered" in found.what


def test_a_gpu_that_is_well(host, examined, of):
    host.with_program("nvidia-smi", nvidia.program())
    host.with_program("dmesg", "#!/bin/sh\necho '[    0.000000] Linux version 6.1'\n")
    report = examined([host])
    assert of(report, "h1", "driver")[0].what == "1 x NVIDIA H100 80GB HBM3, driver 550.54.14"
    for check in ("ecc", "throttling", "strangers", "xid"):
        assert [f.severity for f in of(report, "h1", check)] == ["ok"], of(report, "h1", check)


def test_a_gpu_that_is_ill(host, examined, of):
    gpus = nvidia.gpu(errors="2", hw_thermal="Active", heat="91", persistence="Disabled")
    apps = f"{nvidia.UUID}, {os.getpid()}, 20480, python3\n"
    host.with_program("nvidia-smi", nvidia.program(gpus, nvidia.rows(pending="Yes"), apps))
    host.with_program("dmesg", f"#!/bin/sh\ncat <<'END'\n{nvidia.XID_79}END\n")
    report = examined([host])
    assert len(bad(of(report, "h1", "ecc"))) == 2
    assert "91 degrees" in bad(of(report, "h1", "throttling"))[0].what
    assert of(report, "h1", "persistence")[0].mend == "persistence"
    assert f"pid {os.getpid()} of " in bad(of(report, "h1", "strangers"))[0].what
    assert "fallen off the bus" in bad(of(report, "h1", "xid"))[0].what


def test_driver_and_library_that_do_not_match(host, examined, of):
    host.with_program("nvidia-smi", nvidia.failing(nvidia.MISMATCH, 18))
    report = examined([host])
    assert "do not match" in bad(of(report, "h1", "driver"))[0].what
    assert of(report, "h1", "ecc")[0].severity is Severity.UNKNOWN


def test_a_driver_of_another_version_is_asked_in_its_own_words(host, examined, of):
    """One that has no page retirement, and calls throttling by its new name only."""
    program = f"""#!/bin/sh
case "$1" in
  *retired_pages.pending*) echo 'Field "retired_pages.pending" is not a valid field to query.'; exit 2 ;;
  *clocks_throttle_reasons*) echo 'Field "clocks_throttle_reasons.hw_thermal_slowdown" is not a valid field to query.'
    exit 2 ;;
  --query-gpu=*) echo '{nvidia.gpu(hw_thermal="Active").strip().replace(" [N/A],", "", 1)}' ;;
  --query-remapped-rows=*) echo '{nvidia.rows().strip()}' ;;
esac
"""
    host.with_program("nvidia-smi", program)
    report = examined([host])
    assert of(report, "h1", "ecc")[0].severity is Severity.OK
    assert "too hot" in bad(of(report, "h1", "throttling"))[0].what


@pytest.mark.slow
def test_an_nvidia_smi_that_hangs_hides_nothing_else(host, examined, of, monkeypatch):
    # The limits are the keeper's own; shorter ones are sent here.
    whole = parcel("examine")
    quick = whole.replace("SMI_S = 25.0", "SMI_S = 1.0")
    assert quick != whole
    sent = lambda name: quick if name == "examine" else parcel(name)  # noqa: E731
    monkeypatch.setattr("fleet_controller.hosts.errand.parcel", sent)
    host.with_program("nvidia-smi", nvidia.HANGING)
    began = time.monotonic()
    report = examined([host])
    assert time.monotonic() - began < 15
    assert "the driver hangs" in bad(of(report, "h1", "driver"))[0].what
    assert of(report, "h1", "strangers")[0].severity is Severity.UNKNOWN
    assert of(report, "h1", "disk")[0].severity is Severity.OK


def test_new_host_keys_are_noted_only_when_asked(ssh_hosts, rounds_of, of):
    [host] = ssh_hosts(1, known=False)
    rounds = rounds_of([host])
    report = rounds.examine(["h1"])
    assert of(report, "h1", "ssh")[0].mend == "host-key"
    assert mends(report, trust=False) == []
    [mend] = mends(report, trust=True)
    assert "noted" in rounds.mend(mend)
    assert rounds.examine(["h1"]).hosts[0].reached


def test_what_is_safe_is_mended(host, rounds_of, of):
    place = host.home / ".fleetctl" / "test" / "h1"
    (place / "releases").mkdir(parents=True)
    place.chmod(0o755)
    left = place / "releases" / ".abc.tar"
    left.write_bytes(b"half")
    young = place / "releases" / ".def.tar.1234.part"
    young.write_bytes(b"half")
    os.utime(left, (1, 1))
    key = make_key(host.folder / "own_key")
    key.chmod(0o644)
    (host.folder / "authorized_keys").write_text(key.with_name("own_key.pub").read_text())
    rounds = rounds_of([host], ssh={"identity_file": str(key)})
    report = rounds.examine(["h1"])
    planned = mends(report, trust=False)
    assert {mend.name for mend in planned} == {"folder", "left-overs", "key-mode"}
    for mend in planned:
        assert rounds.mend(mend)
        assert rounds.mend(mend), "done twice it does no harm"
    after = rounds.examine(["h1"])
    assert not any(still(mend, after) for mend in planned)
    assert place.stat().st_mode & 0o777 == 0o700 and key.stat().st_mode & 0o777 == 0o600
    assert not left.exists() and young.exists()


@pytest.mark.slow
def test_a_mend_that_needs_root_is_done_by_the_program_of_the_host(host, rounds_of, of, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs to be root on the host")
    on = tmp_path / "on"
    well, off = nvidia.gpu(), nvidia.gpu(persistence="Disabled")
    program = f"""#!/bin/sh
case "$1" in
  -pm) touch {on} ;;
  --query-gpu=*) if [ -e {on} ]; then echo '{well.strip()}'; else echo '{off.strip()}'; fi ;;
esac
"""
    host.with_program("nvidia-smi", program)
    rounds = rounds_of([host])
    [mend] = mends(rounds.examine(["h1"]), trust=False)
    assert mend.name == "persistence" and rounds.mend(mend)
    assert not of(rounds.examine(["h1"]), "h1", "persistence")


def test_an_address_that_the_host_does_not_have_is_told(host, examined, of):
    """Behind NAT: others know the machine by an address on which it can't listen."""
    agent = {"port": free_port("127.0.0.1"), "listen": "203.0.113.7"}
    [found] = bad(of(examined([host], agent=agent), "h1", "door"))
    assert "of 203.0.113.7: " in found.what and "agent.listen" in found.fix


HOSTILE = """#!/bin/sh
# Reads the keeper's text as Python would, and answers in its place.
word=$(grep -o '@fleetctl-[0-9a-f]*@' | tail -1)
printf '\\n%s answer %s\\n' "$word" '{answer}'
"""


@pytest.mark.parametrize(
    "answer",
    [
        '{"system": {"value": {"os": "\\u001b[2J\\u202eevil"}}, "disk": {"value": {"free": "1e999"}}, "port": 7}',
        pytest.param(
            '{"driver": {"value": {"devices": {"a": 1}, "nodes": -1e308}}, "now": "soon", "heard": []}',
            marks=pytest.mark.slow,
        ),
        pytest.param("[1, 2, 3]", marks=pytest.mark.slow),
        "not json",
    ],
)
def test_a_host_that_lies_spoils_its_own_page_alone(ssh_hosts, examined, of, answer):
    hosts = ssh_hosts(2)
    hosts[0].with_program("python3", HOSTILE.replace("{answer}", answer))
    report = examined(hosts, python="python3")
    assert of(report, "h2", "os")[0].severity is Severity.OK
    assert not any("\x1b" in f.what or "\u202e" in f.what for _, f in report.each())
    assert report.hosts[0].findings
    assert not [f for f in report.hosts[0].findings if f.check == "disk" and f.severity is Severity.OK]


@pytest.mark.skipif(bool(accounts.missing()), reason=accounts.missing())
@pytest.mark.parametrize(
    ("sudo", "given", "severity", "words"),
    [
        pytest.param("nopasswd", None, "ok", "asks for no password", marks=pytest.mark.slow),
        pytest.param("password", None, "warning", "asks for a password", marks=pytest.mark.slow),
        ("password", "canary-xyzzy", "ok", "with the password that was given"),
        pytest.param(
            "password", "another one", "warning", "does not take the password", marks=pytest.mark.slow
        ),
        ("none", "canary-xyzzy", "warning", ""),
    ],
)
def test_a_user_who_is_not_root(host, rounds_of, of, sudo, given, severity, words):
    accounts.give_account(host, "canary-xyzzy", sudo)
    report = rounds_of([host], python="python3", sudo=given).examine(["h1"])
    [found] = of(report, "h1", "sudo")
    assert (found.severity, words in found.what) == (severity, True), found
    assert "canary-xyzzy" not in repr(report)
    assert of(report, "h1", "ssh")[0].what.startswith(f"connected as {accounts.NAME}")


@pytest.mark.slow
@pytest.mark.skipif(bool(accounts.missing()), reason=accounts.missing())
def test_a_folder_of_somebody_else_is_told_and_left_alone(host, examined, of):
    accounts.give_account(host, "secret", "none")
    place = host.home / ".fleetctl"
    place.mkdir(mode=0o755)  # root's
    [found] = bad(of(examined([host], python="python3"), "h1", "disk"))
    assert "may not write" in found.what and "chown" in found.fix and found.mend is None
