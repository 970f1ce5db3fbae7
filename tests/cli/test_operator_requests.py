"""scale, drain, uncordon, autoscale: what reaches the controller, and what is refused before that."""

from __future__ import annotations

import threading

import pytest

TWO_POOLS = """\
fleet: demo
hosts:
  - {name: a, address: local}
  - {name: b, address: local}
models:
  - {name: hello, source: models/hello, entrypoint: "model:Hello"}
pools:
  - {name: big, hosts: [a], models: [hello]}
  - {name: small, hosts: [b], models: [hello]}
"""
REQUESTS = [
    ("scale", "2"),
    ("drain", "gpu-a"),
    ("uncordon", "gpu-a"),
    ("autoscale", "pause"),
    ("autoscale", "resume"),
]


@pytest.fixture
def serving(stage):
    stage.journal.set_goal("up")
    stage.bring_up("gpu-a")
    return stage


@pytest.mark.parametrize("arguments", REQUESTS)
def test_without_a_controller_nothing_is_recorded(fleetctl, journal, arguments):
    ran = fleetctl(*arguments)
    assert (ran.code, ran.err) == (1, "the controller is not running; start it with `fleetctl up`\n")
    assert journal.asked() == []


@pytest.mark.parametrize("arguments", REQUESTS)
def test_a_fleet_that_was_never_up_leaves_no_trace(fleetctl, folder, arguments):
    assert fleetctl(*arguments).code == 1
    assert not (folder / ".fleetctl").exists()


def test_scale_waits_for_the_number_it_asked_for(fleetctl, serving):
    def answer(arguments):
        serving.pools[0]["desired"] = arguments["servers"]
        serving.bring_up("gpu-b")
        return "pool default goes to 2"

    serving.answers["scale"] = answer
    ran = fleetctl("scale", "2")
    assert ran.code == 0, ran.err
    assert serving.asked == [("scale", {"pool": "default", "servers": 2})]
    assert ran.err.startswith("pool default goes to 2\ngpu-b        booting ")
    assert ran.out == "pool      default: 2 of 2 ready\n"


def test_scaling_down_waits_until_the_host_is_off(fleetctl, serving):
    serving.bring_up("gpu-b")
    serving.pools[0]["desired"] = 2

    def answer(_arguments):
        serving.pools[0]["desired"] = 1
        serving.take_down("gpu-b")
        return "pool default goes to 1"

    serving.answers["scale"] = answer
    ran = fleetctl("scale", "default=1")
    assert ran.code == 0
    assert ran.err.splitlines()[-1].split()[:2] == ["gpu-b", "off"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("9", "fleet.yaml:14: pool default may have 1 to 3 servers, not 9; change max_servers there"),
        (
            "0",
            "fleet.yaml:13: pool default may have 1 to 3 servers, not 0; change min_servers there; `fleetctl down`",
        ),
        ("many", '"many" is not [POOL=]N; write it like 3 or default=3'),
        ("-1", "No such option"),
        ("default=", '"default=" is not [POOL=]N'),
        ("defualt=2", 'no pool "defualt" in fleet.yaml; did you mean "default"?'),
    ],
)
def test_a_number_that_cannot_be_is_exit_2(fleetctl, serving, target, words):
    ran = fleetctl("scale", target)
    assert ran.code == 2
    assert words in ran.err
    assert serving.asked == []


def test_several_pools_want_a_name(fleetctl, folder):
    (folder / "fleet.yaml").write_text(TWO_POOLS)
    ran = fleetctl("scale", "2")
    assert (ran.code, ran.err) == (2, "there are 2 pools; say which one: big=2, small=2\n")


def test_drain_returns_when_the_host_is_off(fleetctl, serving):
    def answer(arguments):
        serving.hosts[arguments["host"]]["cordoned"] = True
        serving.take_down(arguments["host"])
        return "gpu-a drains"

    serving.answers["drain"] = answer
    ran = fleetctl("drain", "gpu-a")
    assert ran.code == 0, ran.err
    assert ran.err.splitlines()[-1] == "gpu-a is off"


def test_draining_a_host_out_of_reach_is_exit_4(fleetctl, serving):
    def answer(_arguments):
        serving.hosts["gpu-a"]["cordoned"] = True
        serving.move("gpu-a", "unreachable", error="gpu-a: no answer within 10 s.")
        return "gpu-a drains"

    serving.answers["drain"] = answer
    ran = fleetctl("drain", "gpu-a")
    assert ran.code == 4
    assert ran.err.splitlines()[-2:] == [
        "gpu-a: no answer within 10 s.",
        "gpu-a is not stopped, and an agent may still run there. It gets no new requests; the controller stops it "
        "once it is reached again",
    ]


def test_draining_a_host_that_is_out_of_reach_for_long_waits_for_nothing(fleetctl, serving):
    """What is looked for again and again never rests; nobody waits for that."""
    serving.move("gpu-a", "unreachable", error="gpu-a: no answer within 10 s.")
    ended = threading.Event()

    def answer(_arguments):
        serving.hosts["gpu-a"]["cordoned"] = True
        return "gpu-a is out of reach"

    def stir():
        count = 0
        while not ended.wait(0.05):
            count += 1
            serving.hosts["gpu-a"]["error"] = f"gpu-a: no answer within 10 s, the try number {count}."

    serving.answers["drain"] = answer
    stirring = threading.Thread(target=stir)
    stirring.start()
    try:
        ran = fleetctl("drain", "gpu-a", "--timeout", "60s")
    finally:
        ended.set()
        stirring.join()
    assert ran.code == 4, ran.err
    assert ran.err.startswith("gpu-a is out of reach\n")


def test_uncordon_and_autoscale_say_what_the_controller_answered(fleetctl, serving):
    for kind in ("uncordon", "pause", "resume"):
        serving.answers[kind] = lambda arguments: f"done with {arguments}"
    assert fleetctl("uncordon", "gpu-b").err == "done with {'host': 'gpu-b'}\n"
    assert fleetctl("autoscale", "pause").err == "done with {'pool': None}\n"
    assert fleetctl("autoscale", "resume", "default").err == "done with {'pool': 'default'}\n"


def test_an_unknown_host_is_exit_2_with_a_guess(fleetctl, serving):
    ran = fleetctl("drain", "gpu_a")
    assert (ran.code, ran.err) == (2, 'no host "gpu_a" in fleet.yaml; did you mean "gpu-a"?\n')


def test_a_controller_that_dies_before_it_answers_gets_the_request_taken_back(fleetctl, serving):
    serving.daemons["controller"].kill()
    serving.daemons["controller"].wait()
    ran = fleetctl("uncordon", "gpu-a")
    assert ran.code == 1
    assert serving.journal.asked() == []
