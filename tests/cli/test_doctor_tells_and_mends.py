from __future__ import annotations

import jsonschema
import pytest
from ruamel.yaml import YAML

FINDING = {
    "type": "object",
    "required": ["check", "severity", "what", "why", "fix", "mend"],
    "properties": {"severity": {"enum": ["problem", "warning", "unknown", "ok", "skipped"]}},
}
HOST = {
    "type": "object",
    "required": ["name", "address", "reached", "off", "seconds", "findings"],
    "properties": {"findings": {"type": "array", "items": FINDING}},
}
DOCUMENT = {
    "type": "object",
    "required": ["schema", "fleet", "at", "seconds", "counts", "here", "hosts", "mended"],
    "properties": {"here": {"type": "array", "items": FINDING}, "hosts": {"type": "array", "items": HOST}},
}
SSH = "{port: 1, connect_timeout: 1s, identity_file: id, known_hosts: known}"
REMOTE = f"  - {{name: far, address: 127.0.0.1, ssh: {SSH}}}\n"


@pytest.fixture
def remote(folder):
    """A fleet with a host on which nothing listens, and a private key that everybody may read."""
    file = folder / "fleet.yaml"
    text = file.read_text().replace("models:\n", REMOTE + "models:\n", 1)
    file.write_text(text.replace('hosts: ["gpu-*"]', 'hosts: ["gpu-*", far]'))
    (folder / "id").write_text("no key at all")
    (folder / "id").chmod(0o644)
    return folder


def test_json_has_the_fields_that_programs_rely_on(fleetctl):
    ran = fleetctl("doctor", "--host", "gpu-a", "--host", "gpu-b", "-o", "json")
    assert ran.code == 0, ran.err + ran.out
    told = ran.json
    jsonschema.validate(told, DOCUMENT)
    assert told["schema"] == "fleetctl/doctor/v1"
    assert [host["name"] for host in told["hosts"]] == ["gpu-a", "gpu-b"]
    assert told["counts"]["problem"] == 0 and told["counts"]["ok"] > 10


def test_looking_makes_no_state_folder(fleetctl, folder):
    assert fleetctl("doctor", "--host", "gpu-a", "-o", "yaml").code == 0
    assert not (folder / ".fleetctl").exists()


def test_the_page_is_quiet_about_what_is_well(fleetctl):
    quiet = fleetctl("doctor", "--host", "gpu-a").out
    loud = fleetctl("doctor", "--host", "gpu-a", "-v").out
    assert "ok " not in quiet and "gpu-a (local)" in quiet
    assert "  ok      shm: /dev/shm has" in loud


def test_a_host_that_is_not_reached_is_a_problem_with_its_own_exit_code(fleetctl, remote):
    some = fleetctl("doctor", "--host", "far", "--host", "gpu-a")
    # the key that everybody may read is a problem of this machine
    assert some.code == 1
    (remote / "id").chmod(0o600)
    assert fleetctl("doctor", "--host", "far", "--host", "gpu-a").code == 3
    none = fleetctl("doctor", "--host", "far")
    assert none.code == 4
    assert "PROBLEM ssh: 127.0.0.1 port 1 refuses the connection" in none.out
    assert "fix: Check ssh.port and that sshd runs on the host" in none.out
    # worst first
    assert none.out.index("far (127.0.0.1, not reached)") < none.out.index("this machine")


def test_what_is_safe_is_mended_after_a_question(fleetctl, remote):
    key = remote / "id"
    shown = fleetctl("doctor", "--host", "gpu-a", "--host", "far", "--fix", "--dry-run")
    assert "would, on this machine: close private keys" in shown.err and key.stat().st_mode & 0o077
    asked = fleetctl("doctor", "--host", "far", "--fix")
    assert asked.code == 2 and "--yes" in asked.err and key.stat().st_mode & 0o077
    ran = fleetctl("doctor", "--host", "far", "--fix", "--yes", "-o", "json")
    assert key.stat().st_mode & 0o777 == 0o600
    [mend] = ran.json["mended"]
    assert (mend["host"], mend["mend"], mend["mended"], mend["failed"]) == (None, "key-mode", True, None)
    assert not [f for f in ran.json["here"] if f["severity"] == "problem"]


def test_a_damaged_state_store_is_told_and_hides_nothing(fleetctl, folder):
    state = folder / ".fleetctl" / "demo"
    state.mkdir(parents=True, mode=0o700)
    (state / "state.db").write_bytes(b"this is no database" * 100)
    ran = fleetctl("doctor", "--host", "gpu-a", "-o", "json")
    assert ran.code == 1
    assert [f for f in ran.json["here"] if f["check"] == "state" and f["severity"] == "problem"]
    assert ran.json["hosts"][0]["reached"]


def test_quarantine_is_told(fleetctl, stage):
    stage.move("gpu-a", "booting", "failed", reason="start failed", error="gpu-a: no \x1b[2Jroom")
    stage.journal.amend("gpu-a", failures=7)
    ran = fleetctl("doctor", "--host", "gpu-a")
    assert "quarantined after 7 failures in a row" in ran.out and "\x1b" not in ran.out
    assert ran.code == 1


def test_a_host_that_is_not_there_and_an_option_alone_are_usage(fleetctl):
    assert fleetctl("doctor", "--host", "gpu-z").code == 2
    assert fleetctl("doctor", "--trust-on-first-use").code == 2


def test_yaml_says_the_same(fleetctl):
    told = YAML(typ="safe").load(fleetctl("doctor", "--host", "gpu-a", "-o", "yaml").out)
    jsonschema.validate(told, DOCUMENT)
