"""HAProxy's configuration, from the list of pools and what holds for the process. PURE.

Nothing that somebody else wrote stands in it: pools are p1, p2..., their places p1s1, p1s2...; the names of models and
pools, keys and tokens are values in map files (maps.py), which HAProxy reads as data. Hosts are not in it either: they
come and go by the runtime API (see wanted.py). So it changes only where a pool comes or goes or is told otherwise.

What is here of its environment: DOORn, the inherited listening sockets; API and HOP, sockets' paths of this process.
All paths are relative to the folder that HAProxy runs in.
"""

from __future__ import annotations

from fleet_balancer.haproxy.door import PEEK, front
from fleet_balancer.haproxy.plan import Door, Plan
from fleet_balancer.haproxy.pools import RETRIES, hop, hop_front, pool_section
from fleet_balancer.haproxy.section import ms, section
from fleet_wire.refusal import STATUS


def render(door: Door, plan: Plan) -> str:
    """The whole file."""
    sections = [_global(door, plan), _defaults(door), front(door, plan)]
    sections += [pool_section(door, pool) for pool in plan.pools]
    sections += [hop(pool) for pool in plan.pools if pool.hops]
    if any(pool.hops for pool in plan.pools):
        sections.append(hop_front())
    return "\n".join("\n".join(lines) for lines in sections) + "\n"


def _global(door: Door, plan: Plan) -> list[str]:
    room = max(door.limits.head_bytes, PEEK if plan.peeks else 0)
    return section(
        "global",
        [
            f"nbthread {door.threads}",
            f"maxconn {door.connections}",
            'stats socket "unix@${API}" mode 600 level admin',
            "stats timeout 20d",
            "lua-load waiting.lua",
            f"tune.bufsize {room + 4096}",
            "tune.maxrewrite 2048",
            f"tune.http.maxhdr {min(32767, door.limits.fields + 1)}",
            "ssl-default-bind-ciphers ECDHE+AESGCM:ECDHE+CHACHA20",
            "ssl-default-bind-options ssl-min-ver TLSv1.2",
        ],
    )


def _defaults(door: Door) -> list[str]:
    limits = door.limits
    errors = [
        ("bad_request", "not a request that can be understood, or its head is too long"),
        ("request_timeout", "the request did not come in time"),
        ("internal", "the front door failed"),
        ("bad_gateway", "the host broke off, or its answer can not be understood"),
        ("unavailable", "no host could be reached in time"),
        ("deadline_exceeded", "the host gave no answer in time"),
    ]
    lines = [
        "mode http",
        "log stdout len 4096 format raw local0 info",
        "option http-keep-alive",
        "option idle-close-on-response",
        "option abortonclose",
        # Each event of a stream goes on when it comes.
        "option http-no-delay",
        "option redispatch 1",
        "http-reuse always",
        f"retries {RETRIES}",
        f"timeout connect {ms(limits.connect_timeout_s)}",
        f"timeout client {ms(limits.body_timeout_s)}",
        f"timeout http-request {ms(limits.header_timeout_s)}",
        f"timeout http-keep-alive {ms(limits.idle_timeout_s)}",
        "timeout tunnel 1h",
        f"timeout check {ms(door.probe_timeout_s)}",
    ]
    for code, message in errors:
        status = STATUS[code]
        again, header = ("1", " hdr retry-after 1") if status == 503 else ("null", "")
        body = f'{{"error":{{"code":"{code}","message":"{message}","retry_after_s":{again}}}}}'
        lines.append(f"http-error status {status} content-type application/json string '{body}'{header}")
    return section("defaults", lines)
