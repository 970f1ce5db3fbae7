"""What is written for HAProxy, and read of it: nobody's names get into the configuration."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_balancer.haproxy.layout import Layout
from fleet_balancer.haproxy.lines import read_access, read_line
from fleet_balancer.haproxy.plan import Door
from fleet_balancer.haproxy.render import render
from fleet_balancer.haproxy.slots import Slots
from fleet_balancer.haproxy.standing import shares
from fleet_balancer.haproxy.wanted import EMPTY, Wanted, commands, weights
from fleet_balancer.member.health import HealthRule
from fleet_balancer.member.member import Member
from fleet_balancer.pool import Pool
from fleet_wire.balancer import ApiKey, Backend, BackendList, BalancerLimits, ModelNeed, PoolConfig
from fleet_wire.refusal import Refusal

DOOR = Door(
    limits=BalancerLimits(),
    threads=1,
    sockets=1,
    tls=False,
    access_log=True,
    connections=100,
    probe_interval_s=1.0,
    probe_timeout_s=1.0,
    run="0",
)


def listed(
    pool: str = "default", model: str = "m", host: str = "a", token: str = "t", key: str = "k"
) -> BackendList:
    return BackendList(
        pools=[PoolConfig(name=pool, models=[ModelNeed(name=model)])],
        backends=[
            Backend(name=host, pool=pool, address="10.0.0.1:1", token=token),
            Backend(name=host + "2", pool=pool, address="10.0.0.2:1", token=token + "2"),
        ],
        keys=[ApiKey(name=key, sha256="0" * 64)],
    )


def rendered(new: BackendList) -> tuple[str, dict[str, dict[str, str]]]:
    layout = Layout()
    plan = layout.plan(new, lenient=False)
    layout.take(new, plan)
    return render(DOOR, plan), layout.maps(new)


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_names_never_change_the_configuration_and_never_break_a_map(
    pool: str, model: str, host: str, key: str
) -> None:
    usual, _ = rendered(listed())
    try:
        text, maps = rendered(listed(pool, model, host, "t", key))
    except Refusal as refusal:
        assert refusal.code == "bad_request"
        return
    assert text == usual
    for entries in maps.values():
        for entry in entries.items():
            assert not any(ord(c) < 32 or ord(c) > 126 for c in "".join(entry))
            assert " " not in entry[0]


@given(st.lists(st.frozensets(st.integers(0, 30)), max_size=20))
def test_a_host_keeps_its_place_and_no_two_share_one(changes: list[frozenset[int]]) -> None:
    slots: Slots[int] = Slots("p1s")
    before: dict[int, str] = {}
    for hosts in changes:
        size = slots.size_for(hosts)
        slots.seat(sorted(hosts))
        now = {host: slots.place_of(host) for host in hosts}
        assert slots.size == size >= len(hosts)
        assert len(set(now.values())) == len(hosts)
        assert all(before[h] == now[h] for h in hosts if h in before)
        before = now


def test_weights_keep_their_proportion() -> None:
    assert weights({"a": 1.0, "b": 2.0, "c": 0.0, "d": 0.001}) == {"a": 64, "b": 128, "c": 0, "d": 1}
    assert weights({"a": 0.0}) == {"a": 0}


def test_a_new_host_gets_nothing_before_it_was_asked_for_its_memory() -> None:
    pool = Pool(PoolConfig(models=[ModelNeed(name="big", device_memory_bytes=50)]), random.Random(1), 3.0)
    asked, new = (Member(Backend(name=name, address=f"{name}:1"), HealthRule()) for name in ("asked", "new"))
    pool.replace([asked, new])
    found = shares(pool, lambda member: member is asked, 0.0)
    assert found["asked"] > 0
    assert found["new"] == 0


def test_a_new_host_gets_nothing_before_its_health_is_known() -> None:
    said = commands("p1", "p1s1", EMPTY, Wanted("10.0.0.1", 80, "ready", 128), hops=False)
    assert said[1] == "set server p1/p1s1 weight 0"
    assert said.index("set server p1/p1s1 health down") < said.index("set server p1/p1s1 weight 128")


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        ("p1 p1s1 200 -- 1500 - -", "answered"),
        ("p1 p1s1 502 SH 1500 - -", "broken"),
        ("p1 p1s1 504 sH 1500 - 1", "broken"),
        ("p1 <NOSRV> 503 LR 1500 - -", "refused"),
        ("p1 p1s1 503 SC 1500 - -", "refused"),
        ("p1 <NOSRV> 503 sQ 1500 - -", "refused"),
        ("p1 p1s1 -1 CH 1500 - -", "abandoned"),
        ("p1 <NOSRV> 503 SC 1500 - -", "abandoned"),
    ],
)
def test_how_a_request_ended_is_read_off_its_log_line(text: str, ending: str) -> None:
    line = read_line(text)
    assert line is not None
    assert (line.ending, line.ms) == (ending, 1.5)


def test_the_rest_of_a_line_is_for_the_access_log() -> None:
    line = read_line('p1 p1s1 200 -- 1500 - - 0 17 127.0.0.1 GET k0 /a?b "my \\"id\\"" ""')
    assert line is not None and line.rest is not None
    access = read_access(line.rest)
    assert access is not None
    assert (access.sent, access.method, access.key, access.target) == (17, "GET", "k0", "/a?b")
    assert (access.request_id, access.model) == ('my "id"', None)
    assert read_access("0 17 127.0.0.1 GET k0 /cut") is None


@given(st.text())
def test_whatever_haproxy_says_is_a_line_or_none(text: str) -> None:
    read_line(text)
    read_access(text)
