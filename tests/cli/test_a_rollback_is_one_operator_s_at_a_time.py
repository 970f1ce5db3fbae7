"""`fleetctl rollback` changes the fleet as a whole: while somebody else does, it is refused and changes nothing."""

from __future__ import annotations

import pytest

from fleet_controller import spec
from fleet_controller.hosts.install import release
from fleet_controller.hosts.install.archives import Archives
from fleet_controller.hosts.install.earlier import EarlierReleases
from fleet_controller.operation.lock import operator_lock


@pytest.fixture
def earlier(folder, stage):
    """The pool served with a release that fleet.yaml no longer asks for."""
    loaded = spec.load(folder / "fleet.yaml")
    kept = EarlierReleases(stage.state.path / "releases")
    kept.note(
        "default",
        release.build(loaded.models),
        loaded.models,
        Archives(stage.state.path / "releases"),
    )
    source = folder / "models" / "hello" / "model.py"
    source.write_text(source.read_text() + "\nNEWER = True\n")
    stage.answers["rollback"] = lambda arguments: "default goes back"
    return kept


@pytest.mark.parametrize("words", [["rollback"], ["rollback", "default", "--clear"]])
def test_during_somebody_s_up_it_is_refused_and_told_who_is_at_work(fleetctl, stage, earlier, words):
    if "--clear" in words:
        assert fleetctl("rollback").code == 0
    before, asked = earlier.pins(), list(stage.asked)
    with operator_lock(stage.journal, "fleetctl up --limit gpu-a") as hold:
        ran = fleetctl(*words)
    assert ran.code == 1
    assert f"{hold.holder.user}@{hold.holder.machine} is at work: `fleetctl up --limit gpu-a`" in ran.err
    assert f"(process {hold.holder.pid})" in ran.err
    assert (earlier.pins(), stage.asked) == (before, asked)
    after = fleetctl(*words)
    assert after.code == 0, after.err
    assert earlier.pins() != before


def test_looking_needs_no_lock(fleetctl, stage, earlier):
    with operator_lock(stage.journal, "fleetctl up"):
        ran = fleetctl("rollback", "--list", "-o", "json")
    assert ran.code == 0
    assert ran.json["pools"][0]["in_force"] == ran.json["pools"][0]["wanted"]


def test_while_it_waits_for_its_answer_an_up_is_refused_too(fleetctl, stage, earlier):
    held = []

    def answer(arguments):
        held.append(stage.journal.lock_holder())
        return "default goes back"

    stage.answers["rollback"] = answer
    assert fleetctl("rollback").code == 0
    assert [one["command"] for one in held] == ["fleetctl rollback default"]
    assert stage.journal.lock_holder() is None
