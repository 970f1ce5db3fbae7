"""`controller.parallel` counts hosts that are worked on: not those that do not answer, and not those that load."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from fleet_lab.blackhole import blackhole, mute
from fleet_lab.lab import Lab


@pytest.mark.parametrize("hole", [blackhole, mute])
def test_black_holes_in_every_place_do_not_hold_up_the_others(
    hole: Callable[[], Any], ssh_hosts: Lab, fleet: Callable[..., Any]
) -> None:
    [good] = ssh_hosts(1)
    one = fleet()
    with ExitStack() as stack:
        dark = []
        for number in range(2):
            entry: dict[str, Any] = good.entry(name=f"a{number}")
            entry["ssh"] = {**entry["ssh"], "port": stack.enter_context(hole()), "connect_timeout": "60s"}
            dark.append(entry)
        one.on_machines([*dark, good.entry(name="good")])
        one.change(lambda spec: spec["controller"].update(parallel=2))
        one.change(lambda spec: spec["pools"][0]["scaling"].update(min_servers=3, max_servers=3))
        one.control()
        began = time.monotonic()
        one.ask("up")
        one.until(lambda: one.states().get("good") == "ready", "the good host to be ready", timeout_s=50)
        assert time.monotonic() - began < 50
        assert one.count("ready") == 1
    one.rest()


def test_a_host_that_loads_leaves_its_place_to_the_next(fleet: Callable[..., Any]) -> None:
    one = fleet(hosts=2, min_servers=2)
    one.change(lambda spec: spec["controller"].update(parallel=1))
    for name in "ab":
        one.behave(name, load_s=600)
    one.control()
    one.ask("up")
    one.until(lambda: one.count("loading") == 2, "both to load at once", timeout_s=50)
    for name in "ab":
        one.behave(name)
    one.until(lambda: one.count("ready") == 2, "both to be ready")


def test_one_at_a_time_is_kept_where_the_operator_says_so(fleet: Callable[..., Any]) -> None:
    one = fleet(hosts=2, min_servers=2)
    for name in "ab":
        one.behave(name, load_s=1.5)
    one.control()
    one.ask("up", bounds={"id": "x", "by": "test", "parallel": 1})
    most = 0
    while one.count("ready") < 2:
        most = max(most, sum(state not in ("off", "ready") for state in one.states().values()))
        time.sleep(0.02)
    assert most == 1
