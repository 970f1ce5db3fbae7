"""A version takes another one's place while clients ask: nobody fails, and each sees the change once."""

from __future__ import annotations

import itertools


def test_a_swap_fails_nobody_and_each_connection_sees_it_once(start_agent, numbered, change, states, asking):
    agent = start_agent(numbered("1", pause_ms=20, max_batch_size_=4)).ready()
    with asking(agent, 6) as clients:
        reply = change(agent, load=numbered("2", pause_ms=20, load_s=0.5, max_batch_size_=4))
        assert reply.status_code == 200, reply.text
        assert reply.json()["result"] == "switched"
        clients.each_saw(5)
    assert clients.said == []
    for seen in clients.answers:
        assert all(version == str(int(number)) for _, version, number in seen)
        assert [version for version, _ in itertools.groupby(version for _, version, _ in seen)] == ["1", "2"]
    agent.until(lambda: states(agent) == {"2": "ready"}, "rid of version 1")
