from __future__ import annotations

import json

import pytest

from fleetctl.__main__ import main


def named(folder, name):
    """A good fleet.yaml whose fleet has this name."""
    text = (folder / "fleet.yaml").read_text().replace("fleet: demo", f"fleet: {name}")
    (folder / f"{name}.yaml").write_text(text)
    return str(folder / f"{name}.yaml")


def test_flag_beats_variable_beats_folder_beats_the_folders_above(fleetctl, folder, monkeypatch):
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert "fleet demo is fine" in fleetctl("validate").out
    near = (folder / "fleet.yaml").read_text().replace("fleet: demo", "fleet: near")
    (folder / "a" / "fleet.yaml").write_text(near.replace("models/hello", "../models/hello"))
    assert "fleet near is fine" in fleetctl("validate").out
    monkeypatch.setenv("FLEETCTL_FILE", named(folder, "variable"))
    assert "fleet variable is fine" in fleetctl("validate").out
    assert "fleet flag is fine" in fleetctl("-f", named(folder, "flag"), "validate").out


@pytest.mark.parametrize(
    "command", ["validate", "plan", "up", "down", "status", "hosts", "events", "explain"]
)
def test_no_file_is_exit_2_with_a_way_out(fleetctl, folder, command):
    (folder / "fleet.yaml").unlink()
    ran = fleetctl(command)
    assert (ran.code, ran.out) == (2, "")
    assert "write one with `fleetctl init`" in ran.err


def test_a_named_file_that_is_not_there_says_who_named_it(fleetctl, folder, monkeypatch):
    assert "nope.yaml (from -f) does not exist" in fleetctl("-f", "nope.yaml", "validate").err
    monkeypatch.setenv("FLEETCTL_FILE", "gone.yaml")
    assert "gone.yaml (from FLEETCTL_FILE) does not exist" in fleetctl("validate").err
    assert "is a folder; name the file" in fleetctl("-f", ".", "validate").err


@pytest.mark.parametrize("command", ["validate", "plan", "up", "down", "status", "events"])
def test_a_bad_fleet_file_is_exit_2_a_line_for_each_problem_and_nothing_touched(fleetctl, folder, command):
    text = (folder / "fleet.yaml").read_text()
    (folder / "fleet.yaml").write_text(
        text.replace("max_servers: 3", "max_servers: 0").replace("models: [hello]", "models: [helo]")
    )
    ran = fleetctl(command)
    assert (ran.code, ran.out) == (2, "")
    problems = ran.err.splitlines()
    assert len(problems) >= 2
    assert any("pools[0].models[0]" in problem for problem in problems)
    assert any("pools[0].scaling" in problem for problem in problems)
    assert all(problem.startswith(f"{folder / 'fleet.yaml'}:") for problem in problems)
    assert not (folder / ".fleetctl").exists()


def test_validate_as_json(fleetctl, folder):
    told = fleetctl("validate", "-o", "json").json
    assert (
        told.items() >= {"schema": "fleetctl/validate/v1", "valid": True, "fleet": "demo", "hosts": 3}.items()
    )
    (folder / "fleet.yaml").write_text("fleet: demo\nhostz: []\n")
    ran = fleetctl("validate", "-o", "json")
    assert ran.code == 2
    assert ran.json["valid"] is False
    assert {"message", "line", "column", "path"} == set(ran.json["problems"][0])


def test_the_schema_is_json(fleetctl):
    assert json.loads(fleetctl("config", "schema").out)["title"] == "fleet.yaml"


def test_init_writes_a_fleet_that_is_valid_and_never_overwrites(fleetctl, folder, monkeypatch):
    assert fleetctl("init", "new").code == 0
    assert fleetctl("-f", "new/fleet.yaml", "validate").code == 0
    (folder / "new" / "fleet.yaml").write_text("mine")
    ran = fleetctl("init", "new")
    assert ran.code == 2
    assert "--force overwrites it" in ran.err
    assert (folder / "new" / "fleet.yaml").read_text() == "mine"
    assert fleetctl("init", "new", "--force").code == 0
    assert (folder / "new" / "fleet.yaml").read_text() != "mine"


def test_plan_in_its_three_forms(fleetctl, folder):
    assert "start" in fleetctl("plan").out
    told = fleetctl("plan", "-o", "json").json
    assert told["schema"] == "fleetctl/plan/v1"
    assert told["steps"][0].keys() == {"kind", "host", "pool", "reason"}
    assert told["pools"][0].items() >= {"name": "default", "desired": 1, "ready": 0, "starting": 0}.items()
    assert "schema: fleetctl/plan/v1" in fleetctl("plan", "-o", "yaml").out
    assert not (folder / ".fleetctl").exists()


def test_an_unknown_command_gets_a_guess(fleetctl):
    ran = fleetctl("stauts")
    assert ran.code == 2
    assert "did you mean status?" in ran.err


@pytest.mark.parametrize("command", ["top", "bench", "schedule"])
def test_what_is_not_in_yet_is_refused(fleetctl, command):
    assert fleetctl(command).code == 2


def test_a_bug_is_one_line_and_the_traceback_only_on_demand(fleetctl, monkeypatch):
    def broken(_path):
        raise RuntimeError("the moon is in the wrong phase")

    monkeypatch.setattr("fleet_controller.spec.load", broken)
    ran = fleetctl("validate")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(
        "this is a bug in fleetctl: RuntimeError: the moon is in the wrong phase; FLEETCTL_DEBUG=1"
    )
    assert len(ran.err.splitlines()) == 1
    monkeypatch.setenv("FLEETCTL_DEBUG", "1")
    assert "Traceback" in fleetctl("validate").err


def test_a_state_store_that_cannot_be_written_is_one_line(fleetctl, folder):
    (folder / ".fleetctl").write_text("in the way")
    ran = fleetctl("up")
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
    assert str(folder / ".fleetctl") in ran.err


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("fleetctl ")
