from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from fleet_lab import nvidia
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_controller.hosts.doctor.chart import Chart, Clock, Door, Line
from fleet_controller.hosts.doctor.diagnosis import diagnose
from fleet_controller.hosts.doctor.facts import Facts
from fleet_controller.hosts.doctor.finding import Severity
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.keeper.facts.nvidia import APPS, FIELDS, ROWS
from fleet_controller.hosts.power import Reading
from fleet_controller.lifecycle import HostState
from fleet_controller.records import HostRecord
from fleet_controller.spec import HostSpec

GIB = 1 << 30


def smi(out: str, status: int = 0, fields: tuple[str, ...] = FIELDS) -> dict[str, Any]:
    return {"status": status, "out": out, "err": "", "fields": list(fields)}


def test_a_host_on_which_all_is_well_has_nothing_but_good_findings(told):
    found = told(door=Door(9400, "the agent", 0.002))
    loud = [
        f
        for findings in found.values()
        for f in findings
        if f.severity not in (Severity.OK, Severity.SKIPPED)
    ]
    assert loud == []
    assert {
        "ssh",
        "sftp",
        "sudo",
        "os",
        "python",
        "disk",
        "memory",
        "shm",
        "clock",
        "driver",
        "ecc",
        "xid",
    } < set(found)


# check, what is known of the host, how bad, words of the finding, the mend
ILL: list[tuple[str, dict[str, Any], str, str, str | None]] = [
    (
        "sudo",
        {"rights": {"way": "", "cause": "sudo asks for a password here"}},
        "warning",
        "asks for a password",
        None,
    ),
    ("sudo", {"rights": "no answer within 10 s"}, "unknown", "no answer within 10 s", None),
    ("os", {"system": {"arch": "riscv64"}}, "warning", "riscv64", None),
    ("os", {"system": {"system": "FreeBSD"}}, "problem", "FreeBSD", None),
    ("ulimits", {"limits": {"nofile": 1024}}, "warning", "1024 files", None),
    ("systemd", {"rights": {"way": "", "cause": "none"}}, "warning", "lingering is off for ops", "linger"),
    ("python", {"python": {"agent": "3.9.2"}}, "problem", "Python 3.9.2", None),
    (
        "python",
        {"python": {"agent": "", "why": "No such file or directory"}},
        "problem",
        "No such file",
        None,
    ),
    ("python", {"python": {"venv": False}}, "problem", "virtual environments", None),
    ("disk", {"disk": {"free": 200 << 20}}, "problem", "200 MiB free", None),
    ("disk", {"disk": {"free": 3 * GIB}}, "warning", "3.0 GiB free", None),
    ("disk", {"disk": {"inodes_free": 12}}, "problem", "12 inodes free", None),
    ("disk", {"disk": {"noexec": True}}, "problem", "noexec", None),
    ("disk", {"disk": {"read_only": True}}, "problem", "read-only", None),
    ("disk", {"disk": {"writable": False, "ours": False}}, "problem", "may not write", None),
    ("disk", {"disk": {"writable": False}}, "problem", "may not write", "folder"),
    ("disk", {"disk": {"mode": 0o755}}, "warning", "open to other users", "folder"),
    ("disk", {"disk": {"type": "nfs4"}}, "warning", "nfs4", None),
    ("left-overs", {"abandoned": {"count": 2, "paths": ["/a", "/b"]}}, "warning", "/a, /b", "left-overs"),
    ("release", {"releases": {"ill": {"abc": "release abc is not whole"}}}, "problem", "not whole", None),
    ("release", {"releases": {"ill": {"old": "gone"}, "wanted": ""}}, "warning", "gone", None),
    ("release", {"releases": {"ill": {}, "wanted": "abc"}}, "warning", "not installed any more", None),
    ("memory", {"memory": {"total": 1 << 30}}, "warning", "1.0 GiB", None),
    ("shm", {"memory": {"shm_total": 64 << 20}}, "problem", "64 MiB, as containers have", None),
    ("shm", {"memory": {"shm_total": None}}, "problem", "no /dev/shm", None),
    ("shm", {"memory": {"shm_free": 1 << 20}}, "problem", "full", None),
    ("port", {"port": {"ours": False, "holder": "pid 7 (nginx)"}}, "problem", "taken by pid 7 (nginx)", None),
    ("door", {"door": Door(9400, trouble="no answer within 2 s")}, "problem", "not reached", None),
    ("ssh-limits", {"ssh": {"startups": [2, 5], "sessions": 10}}, "warning", "MaxStartups", None),
    ("ssh-limits", {"ssh": {"sessions": 1}}, "warning", "MaxSessions", None),
    ("sftp", {"files": HostFailure("h1", "sftp", "it has no SFTP", "Add it")}, "problem", "no SFTP", None),
    ("clock", {"clock_seen": Clock(-7.5, 0.1)}, "warning", "7.4 s behind", None),
    ("clock", {"clock": {"synchronized": False}}, "warning", "nothing keeps its clock right", None),
    ("clock", {"clock_seen": None}, "unknown", "unknown", None),
    ("network", {"line": Line(0.01, 1 << 20, 2.0)}, "warning", "0.5 MB/s", None),
    ("network", {"line": Line(0.01, trouble="it broke")}, "unknown", "it broke", None),
    (
        "power",
        {"power": Reading("unknown", "its BMC does not answer")},
        "problem",
        "BMC does not answer",
        None,
    ),
    ("power", {"power": Reading("off")}, "problem", "says that it is off, but", None),
    (
        "driver",
        {"driver": {"library_version": "550.90.07"}},
        "problem",
        "550.54.14, the libraries are 550.90.07",
        None,
    ),
    ("driver", {"gpus": smi(nvidia.MISMATCH, 18)}, "problem", "do not match", None),
    (
        "driver",
        {"driver": {"nouveau": True, "module": False, "kernel_version": ""}},
        "problem",
        "nouveau",
        None,
    ),
    (
        "driver",
        {"driver": {"module": False, "kernel_version": "", "nodes": 0}, "gpus": {"missing": True}},
        "problem",
        "no driver is loaded",
        None,
    ),
    ("driver", {"gpus": smi(nvidia.LOST, 15)}, "problem", "does not answer", None),
    ("driver", {"gpus": smi(nvidia.NO_DRIVER, 9)}, "problem", "couldn't communicate", None),
    ("driver", {"gpus": "no answer within 25 s"}, "problem", "the driver hangs", None),
    ("driver", {"gpus": {"missing": True}}, "warning", "not installed", None),
    ("driver", {"driver": {"denied": ["nvidia0"]}}, "problem", "/dev/nvidia0", None),
    (
        "driver",
        {"driver": {"devices": [{"bus": "a", "driver": "nvidia"}, {"bus": "b", "driver": "nvidia"}]}},
        "problem",
        "2 NVIDIA devices are plugged in, the driver shows 1",
        None,
    ),
    ("persistence", {"gpus": smi(nvidia.gpu(persistence="Disabled"))}, "warning", "GPU 0", "persistence"),
    ("ecc", {"gpus": smi(nvidia.gpu(errors="3"))}, "problem", "3 uncorrected", None),
    ("ecc", {"gpus": smi(nvidia.gpu(ever="5"))}, "warning", "5 uncorrected memory errors in its life", None),
    ("door", {"door": Door(9400, deaf="10.0.0.11: no such address")}, "problem", "nothing can listen", None),
    ("ecc", {"gpus": smi(nvidia.gpu(retired="Yes"))}, "problem", "page waits to be retired", None),
    (
        "ecc",
        {"rows": smi(nvidia.rows(pending="Yes"), fields=ROWS)},
        "problem",
        "row waits to be remapped",
        None,
    ),
    (
        "ecc",
        {"rows": smi(nvidia.rows(pending="1"), fields=ROWS)},
        "problem",
        "row waits to be remapped",
        None,
    ),
    ("ecc", {"rows": smi(nvidia.rows(failure="Yes"), fields=ROWS)}, "problem", "could not be remapped", None),
    ("ecc", {"rows": smi(nvidia.rows(uncorrectable="4"), fields=ROWS)}, "warning", "4 memory rows", None),
    ("ecc", {"gpus": smi(nvidia.gpu(used="[GPU requires reset]"))}, "problem", "wants to be reset", None),
    ("ecc", {"gpus": smi(nvidia.MISMATCH, 18)}, "unknown", "memory errors are unknown", None),
    (
        "throttling",
        {"gpus": smi(nvidia.gpu(hw_thermal="Active", heat="92"))},
        "problem",
        "92 degrees: too hot",
        None,
    ),
    ("throttling", {"gpus": smi(nvidia.gpu(power_cap="Active"))}, "warning", "power limit", None),
    ("xid", {"kernel_log": {"lines": [nvidia.XID_79]}}, "problem", "fallen off the bus", None),
    ("xid", {"kernel_log": {"lines": [nvidia.XID_13]}}, "skipped", "a program's doing", None),
    ("xid", {"kernel_log": {"denied": True}}, "unknown", "may not read the kernel's log", None),
    (
        "torch",
        {"torch": {"available": False, "why": "driver is too old"}},
        "problem",
        "driver is too old",
        None,
    ),
    ("torch", {"torch": {"available": False, "built": ""}}, "warning", "without CUDA", None),
    ("torch", {"torch": "no answer within 60 s"}, "unknown", "no answer", None),
]


@pytest.mark.parametrize(("check", "seen", "severity", "words", "mend"), ILL)
def test_what_is_wrong_is_said(told, check, seen, severity, words, mend):
    [found] = told(**seen)[check]
    assert (found.severity, found.mend) == (severity, mend)
    assert words in found.what
    if severity in ("problem", "warning"):
        assert found.why and found.fix
    assert "{host}" not in found.fix


def test_what_the_round_trip_may_have_cost_is_not_the_clocks_fault(told):
    [found] = told(clock_seen=Clock(1.8, 0.9))["clock"]
    assert found.severity is Severity.OK


def test_a_stranger_on_the_device_is_named(told):
    apps = smi(f"{nvidia.UUID}, 4242, 30123, python3\n{nvidia.UUID}, 77, 512, python3\n", fields=APPS)
    who = {
        "4242": {"user": "eve", "command": "python3 mine.py", "ours": False},
        "77": {"user": "ops", "command": "fleet_agent", "ours": True},
    }
    [found] = told(apps={**apps, "who": who})["strangers"]
    assert found.severity is Severity.PROBLEM
    assert found.what == "device memory is held by pid 4242 of eve: python3 mine.py (30123 MiB)"
    assert "kill 4242" in found.fix


def test_memory_that_nobody_seems_to_hold_is_told(told):
    [found] = told(gpus=smi(nvidia.gpu(used="40000")))["strangers"]
    assert "40000 MiB in use, and no process" in found.what


def test_files_that_fleet_yaml_gives_the_agent_are_enough(told):
    [found] = told(limits={"nofile": 1024}, spec={"agent": {"limits": {"open_files": 65536}}})["ulimits"]
    assert found.severity is Severity.OK


def test_a_users_own_systemd_needs_lingering_whatever_sudo_may(told):
    [found] = told(spec={"agent": {"supervisor": "systemd-user"}})["systemd"]
    assert (found.severity, found.mend) == ("warning", "linger")
    assert told(spec={"agent": {"supervisor": "process"}})["systemd"][0].severity is Severity.OK


def test_a_host_without_a_gpu_is_well_unless_its_agent_wants_one(told):
    none = {
        "devices": [],
        "nodes": 0,
        "smi": "",
        "module": False,
        "kernel_version": "",
        "library_version": "",
    }
    missing = {"gpus": {"missing": True}, "rows": {"missing": True}, "apps": {"missing": True}}
    found = told(driver=none, torch={"skipped": "no NVIDIA device here"}, **missing)
    assert [f.severity for f in found["driver"]] == ["skipped"]
    assert "ecc" not in found and "strangers" not in found
    wants = told(driver=none, spec={"agent": {"device": "cuda:0"}}, **missing)
    assert wants["driver"][0].severity is Severity.PROBLEM


def test_a_host_that_is_not_reached_has_that_problem_alone(chart_of):
    failure = HostFailure(
        "h1", "timeout", "no answer from 10.0.0.11 port 22 within 10 s", "Check it", "bastion"
    )
    spec = HostSpec.model_validate({"name": "h1", "address": "10.0.0.11"})
    [found, *rest] = diagnose(Chart(spec, failure))
    assert (found.check, found.severity) == ("ssh", "problem")
    assert "jump host bastion" in found.what
    assert {f.severity for f in rest} <= {Severity.SKIPPED}


def test_a_host_that_is_switched_off_has_no_problem():
    failure = HostFailure("h1", "timeout", "no answer", "Check it")
    spec = HostSpec.model_validate({"name": "h1", "address": "10.0.0.11", "power": {"driver": "libvirt"}})
    found = diagnose(Chart(spec, failure, power=Reading("off")))
    assert {f.severity for f in found} == {Severity.SKIPPED, Severity.OK}


def test_a_host_without_python_is_reached_and_the_rest_is_unknown():
    failure = HostFailure("h1", "python", "python3 cannot be run on the host", "Install it")
    spec = HostSpec.model_validate({"name": "h1", "address": "10.0.0.11"})
    found = {f.check: f.severity for f in diagnose(Chart(spec, failure, files=""))}
    assert found["python"] is Severity.PROBLEM and found["ssh"] is Severity.OK
    assert found["examination"] is Severity.UNKNOWN


def test_quarantine_is_told_with_its_reason(told):
    record = HostRecord("h1", state=HostState.FAILED, failures=6, error="port 9400 is taken by pid 7 (nginx)")
    [found] = told(record=record)["journal"]
    assert found.severity is Severity.PROBLEM and "pid 7 (nginx)" in found.what
    assert "after 6 failures in a row" in found.what


def test_a_stop_that_is_not_proved_is_no_number_of_failures(told):
    record = HostRecord(
        "h1", state=HostState.FAILED, failures=5, error="port 9400 is held by pid 7", unproven=True
    )
    [found] = told(record=record)["journal"]
    assert found.severity is Severity.PROBLEM and found.what == "port 9400 is held by pid 7"


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["system", "disk", "gpus", "rows", "apps", "driver", "kernel_log", "python", "port", "memory"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3)
            ),
            max_leaves=8,
        ),
    )
)
def test_whatever_a_host_says_of_itself_becomes_findings_that_can_be_shown(said):
    spec = HostSpec.model_validate({"name": "h1", "address": "10.0.0.11"})
    for shape in (said, {name: {"value": value} for name, value in said.items()}):
        for found in diagnose(Chart(spec, facts=Facts(shape))):
            text = found.what + found.why + found.fix
            assert "\x1b" not in text and len(text) < 5000


CELLS = st.sampled_from(
    [
        "0",
        "1",
        "Active",
        "Not Active",
        "Yes",
        "No",
        "[N/A]",
        "[Unknown Error]",
        "1e999",
        "-1",
        "NaN",
        "\x1b[2J",
        "",
    ]
) | st.text(max_size=12)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(CELLS, max_size=20).map(", ".join), max_size=5).map("\n".join),
    st.sampled_from([0, 2, 255]),
)
def test_whatever_nvidia_smi_prints_becomes_findings_that_can_be_shown(out, status):
    facts = {
        "driver": {"value": {"devices": [{}], "module": True, "nodes": 1, "smi": "/nvidia-smi"}},
        "gpus": {"value": smi(out, status)},
        "rows": {"value": smi(out, status, ROWS)},
        "apps": {"value": {**smi(out, status, APPS), "who": {}}},
        "kernel_log": {"value": {"lines": out.splitlines(), "uptime_s": 10}},
    }
    spec = HostSpec.model_validate({"name": "h1", "address": "10.0.0.11"})
    found = diagnose(Chart(spec, facts=Facts(json.loads(json.dumps(facts)))))
    assert not any("\x1b" in f.what for f in found)
    # What is not a table is never taken for a GPU on which all is well.
    if status:
        assert not any(
            f.severity is Severity.OK for f in found if f.check in ("ecc", "throttling", "strangers")
        )


def test_fields_that_are_not_known_are_not_well(told):
    unknown = ", ".join(["0", "NVIDIA A", nvidia.UUID, *["[Unknown Error]"] * (len(FIELDS) - 3)])
    found = told(gpus=smi(unknown + "\n"))
    assert found["throttling"][0].severity is Severity.UNKNOWN
    assert found["ecc"][0].severity is Severity.UNKNOWN


def test_a_gpu_without_error_correction_is_not_ill(told):
    [found] = told(gpus=smi(nvidia.gpu(errors="[N/A]")), rows=smi("", 2))["ecc"]
    assert found.severity is Severity.SKIPPED


CHECKS = {
    "system": ["os"],
    "rights": ["sudo"],
    "memory": ["memory", "shm"],
    "limits": ["ulimits"],
    "service": ["systemd"],
    "disk": ["disk"],
    "releases": ["release"],
    "port": ["port"],
    "python": ["python"],
    "driver": ["driver"],
    "gpus": ["driver", "ecc", "throttling"],
    "apps": ["strangers"],
    "kernel_log": ["xid"],
    "torch": ["torch"],
}


@pytest.mark.parametrize("fact", CHECKS)
@pytest.mark.parametrize(
    "said", [{}, {"value": {}}, {"value": {"x": 1}}, {"value": []}, {"trouble": "it hangs"}, "nothing"]
)
def test_what_is_not_known_is_never_taken_for_well(chart_of, fact, said):
    chart = chart_of()
    told = {**chart.facts._said, fact: said}
    found = diagnose(replace(chart, facts=Facts(told)))
    for check in CHECKS[fact]:
        mine = [f for f in found if f.check == check]
        assert mine and not [f for f in mine if f.severity in (Severity.OK, Severity.SKIPPED)], mine
