"""keys create, list, revoke: what is printed, what is kept, and who is told."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest


def test_a_key_is_printed_once_and_only_its_digest_is_kept(fleetctl, folder, journal):
    ran = fleetctl("keys", "create", "alice", "--rate", "100", "--share", "2", "--pool", "default")
    assert ran.code == 0, ran.err
    key = ran.out.strip()
    assert key.startswith("fleet-") and len(key) > 40
    [kept] = journal.api_keys()
    assert kept.sha256 == hashlib.sha256(key.encode()).hexdigest()
    assert (kept.name, kept.rate_per_s, kept.burst, kept.share, kept.pools) == (
        "alice", 100.0, None, 2.0, ("default",),
    )  # fmt: skip
    for file in Path(folder).rglob("*"):
        assert not file.is_file() or key.encode() not in file.read_bytes(), file
    assert key not in ran.err


def test_each_key_is_another_one(fleetctl, journal):
    assert fleetctl("keys", "create", "a").out != fleetctl("keys", "create", "b").out


def test_the_json_forms_carry_the_schema(fleetctl, journal):
    made = fleetctl("keys", "create", "alice", "-o", "json").json
    assert made["schema"] == "fleetctl/keys/v1"
    assert made["key"].startswith("fleet-")
    listed = fleetctl("keys", "list", "-o", "json").json
    assert (listed["schema"], listed["fleet"], listed["required"]) == ("fleetctl/keys/v1", "demo", False)
    [entry] = listed["keys"]
    assert entry == {k: v for k, v in made.items() if k not in ("schema", "key")}
    assert "sha256" not in entry


def test_the_table_names_what_each_may_do(fleetctl, journal):
    fleetctl("keys", "create", "alice", "--rate", "5", "--burst", "10")
    fleetctl("keys", "create", "bob", "--pool", "default")
    ran = fleetctl("keys", "list")
    rows = [line.split() for line in ran.out.splitlines()]
    assert rows[0] == ["NAME", "AGE", "RATE/S", "BURST", "SHARE", "POOLS"]
    assert [[r[0], *r[2:]] for r in rows[1:]] == [
        ["alice", "5", "10", "1", "all"],
        ["bob", "-", "-", "1", "default"],
    ]
    assert "balancer.keys: off" in ran.err


def test_a_revoked_key_is_gone_and_the_events_name_it(fleetctl, journal):
    key = fleetctl("keys", "create", "alice").out.strip()
    assert fleetctl("keys", "revoke", "alice").code == 0
    assert journal.api_keys() == []
    assert [e.reason for e in journal.events()] == ["API key alice was created", "API key alice was revoked"]
    assert not any(key in str(e) for e in journal.events())


def test_a_running_controller_is_asked_to_tell_the_balancer(fleetctl, stage):
    stage.answers["keys"] = lambda _: "the balancer asks for a key; 1 is in force"
    ran = fleetctl("keys", "create", "alice")
    assert (ran.code, ran.err) == (0, "alice is in force: the balancer asks for a key; 1 is in force\n")
    assert stage.asked == [("keys", {})]
    ran = fleetctl("keys", "revoke", "alice")
    assert (ran.code, len(stage.asked)) == (0, 2)


def test_a_controller_that_does_not_know_keys_loses_none(fleetctl, stage):
    def refuse(_):
        raise stage.Refused("this controller does not know the request 'keys'; restart it: fleetctl up")

    stage.answers["keys"] = refuse
    ran = fleetctl("keys", "create", "alice")
    assert ran.code == 1 and ran.out.startswith("fleet-")
    assert "in force in the state store, but the balancer may not know it yet" in ran.err
    assert [k.name for k in stage.journal.api_keys()] == ["alice"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("create", "al ice"), 2, '"al ice" cannot be a name'),
        (("create", "a", "--pool", "defalut"), 2, 'did you mean "default"?'),
        (("create", "a", "--rate", "0"), 2, "a rate is between"),
        (("create", "a", "--rate", "nan"), 2, "a rate is between"),
        (("create", "a", "--burst", "5"), 2, "give --rate too"),
        (("create", "a", "--rate", "5", "--burst", "0"), 2, "a burst is between"),
        (("create", "a", "--share", "0"), 2, "a share is between"),
        (("create", "alice"), 1, "there is a key alice already"),
        (("revoke", "alcie"), 1, "did you mean alice?"),
        (("revoke", "zoe"), 1, "there is no key zoe"),
    ],
)
def test_what_can_not_be_is_refused_and_changes_nothing(fleetctl, journal, arguments, code, words):
    fleetctl("keys", "create", "alice")
    ran = fleetctl("keys", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert [k.name for k in journal.api_keys()] == ["alice"]


def test_a_fleet_that_was_never_up_has_no_keys_and_leaves_no_trace(fleetctl, folder):
    assert fleetctl("keys", "list", "-o", "json").json["keys"] == []
    assert fleetctl("keys", "revoke", "alice").code == 1
    assert not (folder / ".fleetctl").exists()


def test_a_share_is_refused_where_the_queue_is_not_fair(fleetctl, folder):
    file = folder / "fleet.yaml"
    file.write_text(file.read_text().replace("balancer: {", "balancer: {engine: haproxy, "))
    ran = fleetctl("keys", "create", "alice", "--share", "2")
    assert ran.code == 2 and "HAProxy's queue is not fair" in ran.err
    assert fleetctl("keys", "create", "alice").code == 0
