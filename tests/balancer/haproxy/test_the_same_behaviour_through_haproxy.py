"""The tests of what a front door does, once more with HAProxy as the engine: the same functions, from the same files.

DIFFERS names those that HAProxy can't pass, and why: docs/balancer.md says the same to its users.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("haproxy", path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin") is None
        and shutil.which("haproxy") is None,
        reason="there is no haproxy: make test-tools brings it",
    ),
]

FILES = ("test_proxying", "test_failover", "test_balancer_admin", "test_device_memory")
DIFFERS = {
    "test_a_half_closed_client_still_gets_a_quick_answer": "for HAProxy a client that closes its sending side is gone",
    "test_an_old_client_gets_its_body_without_chunks": "HAProxy passes a host's chunks on to an HTTP/1.0 client",
    "test_a_body_that_ends_with_the_connection_becomes_chunked": "HAProxy ends it with the connection too",
    "test_where_a_host_hangs_up_a_post_is_never_sent_again_and_a_get_once": "HAProxy sends a GET up to 3 times again",
    "test_bodies_over_the_limit_are_refused": "HAProxy can't bound chunked bodies",
    "test_latencies_are_those_that_the_client_sees": "test_haproxy_carries_the_requests has its own",
    "test_where_nobody_has_room_a_request_waits_then_is_refused_or_served": "HAProxy does not know why nobody takes it",
    "test_only_hosts_with_room_get_the_model": "HAProxy does not know models: its own test is in this folder",
    "test_a_host_that_does_not_come_up_is_a_line_in_the_log": "HAProxy asks the hosts: the status says it, the log not",
    "test_a_large_body_passes_both_ways_in_flat_memory": "it looks at the memory of the wrong process",
    "test_a_client_that_does_not_read_stops_the_host_not_the_memory": "it looks at the memory of the wrong process",
}


def _load(name: str) -> dict[str, object]:
    path = Path(__file__).parents[1] / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"through_haproxy_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


for _file in FILES:
    for _name, _value in _load(_file).items():
        if _name.startswith("test_") and callable(_value):
            _reason = DIFFERS.get(_name)
            globals()[_name] = pytest.mark.skip(reason=_reason)(_value) if _reason else _value
        elif type(_value).__name__ == "FixtureFunctionDefinition":
            globals()[_name] = _value
