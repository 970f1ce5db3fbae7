"""HAProxy's configuration, from the list of pools and what holds for the process. PURE.

Nothing that somebody else wrote stands in it: pools are p1, p2..., their places p1s1, p1s2...; the names of models and
pools, keys and tokens are values in map files (maps.py), which HAProxy reads as data. Hosts are not in it either: they
come and go by the runtime API (see wanted.py). So it changes only where a pool comes or goes or is told otherwise.

What is here of its environment: DOORn, the inherited listening sockets; API and HOP, sockets' paths of this process.
All paths are relative to the folder that HAProxy runs in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fleet_balancer.haproxy.lines import ACCESS, FORMAT
from fleet_wire.balancer import BalancerLimits, PoolConfig
from fleet_wire.refusal import STATUS

# How long a body may be for its model to be looked up in it, with the head that goes before.
PEEK = 64 * 1024
RATE_WINDOW_S = 10
RETRIES = 3
# Load of the busiest host over the mean, in percent, before consistent_hash passes on to the next.
BOUNDED_LOAD = 150
_HEADER = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BALANCE = {
    "least_connections": "leastconn",
    "gpu_memory": "leastconn",
    "response_time": "leastconn",
    "weighted": "leastconn",
    "power_of_two": "random(2)",
    "round_robin": "roundrobin",
}
# So that the hop is never the one that hangs up.
_LONG = "20d"


@dataclass(frozen=True)
class Door:
    """What holds for the process. `sockets`: how many listening sockets it inherits."""

    limits: BalancerLimits
    threads: int
    sockets: int
    tls: bool
    access_log: bool
    connections: int
    probe_interval_s: float
    probe_timeout_s: float
    run: str


@dataclass(frozen=True)
class PoolPlan:
    """`hops`: its hosts want different tokens (see _hop)."""

    id: str
    config: PoolConfig
    places: int
    hops: bool
    lenient: bool


@dataclass(frozen=True)
class Plan:
    """`groups`: names of sets of pools that serve a model together, and those pools in the order of preference."""

    pools: tuple[PoolPlan, ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    keys: bool
    peeks: bool
    open_pools: tuple[str, ...]


def header_name(name: str) -> str:
    """A header's name as it may stand in the configuration. Raises ValueError for anything else."""
    if not _HEADER.fullmatch(name):
        raise ValueError(
            f"{name!r:.80} is no header name that engine haproxy takes: letters, digits, - and _"
        )
    return name.lower()


def render(door: Door, plan: Plan) -> str:
    """The whole file."""
    sections = [_global(door, plan), _defaults(door), _front(door, plan)]
    sections += [_pool(door, pool) for pool in plan.pools]
    sections += [_hop(pool) for pool in plan.pools if pool.hops]
    if any(pool.hops for pool in plan.pools):
        sections.append(_hop_front())
    return "\n".join("\n".join(lines) for lines in sections) + "\n"


def refusal(code: str, message: str, condition: str, retry_after: bool = False) -> str:
    """A rule that answers as the house does. `message` is ours; what is in %[...] is put in by HAProxy, as JSON."""
    status = STATUS[code]
    again = "1" if retry_after else "null"
    body = f'{{"error":{{"code":"{code}","message":"{message}","retry_after_s":{again}}}}}'
    # Within single quotes everything is as it stands, but for the single quote.
    body = body.replace("'", "'\"'\"'")
    header = " hdr retry-after 1" if status in (429, 503) else ""
    header += " hdr connection close" if status == 413 else ""
    header += " hdr www-authenticate Bearer" if status == 401 else ""
    return f"http-request return status {status} content-type application/json lf-string '{body}'{header} {condition}"


def _ms(seconds: float) -> str:
    # HAProxy's longest time is 2^31 - 1 milliseconds.
    return f"{max(1, min(2**31 - 1, round(seconds * 1000)))}ms"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return [title, *(f"    {line}" for line in lines)]


def _global(door: Door, plan: Plan) -> list[str]:
    room = max(door.limits.head_bytes, PEEK if plan.peeks else 0)
    return _section(
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
        f"timeout connect {_ms(limits.connect_timeout_s)}",
        f"timeout client {_ms(limits.body_timeout_s)}",
        f"timeout http-request {_ms(limits.header_timeout_s)}",
        f"timeout http-keep-alive {_ms(limits.idle_timeout_s)}",
        "timeout tunnel 1h",
        f"timeout check {_ms(door.probe_timeout_s)}",
    ]
    for code, message in errors:
        status = STATUS[code]
        again, header = ("1", " hdr retry-after 1") if status == 503 else ("null", "")
        body = f'{{"error":{{"code":"{code}","message":"{message}","retry_after_s":{again}}}}}'
        lines.append(f"http-error status {status} content-type application/json string '{body}'{header}")
    return _section("defaults", lines)


def _front(door: Door, plan: Plan) -> list[str]:
    tls = " ssl crt door.pem alpn http/1.1" if door.tls else ""
    limits = door.limits
    lines = [f'bind "fd@${{DOOR{n}}}"{tls}' for n in range(door.sockets)]
    lines += [
        f"log-format '{FORMAT}{ACCESS if door.access_log else ''}'",
        f"unique-id-format {door.run}-%pid-%rt",
        "http-request set-var(txn.t0) date(0,us)",
        "http-request set-var(txn.id) req.fhdr(x-request-id)",
        "http-request set-var(txn.id) unique-id unless { var(txn.id) -m found }",
        "http-after-response set-header x-request-id %[var(txn.id)] if { var(txn.id) -m found }",
        refusal("uri_too_long", "the target is too long", f"if {{ url,length gt {limits.target_bytes} }}"),
        refusal(
            "too_large",
            f"the body may have {limits.body_bytes} bytes",
            f"if {{ req.hdr_val(content-length) gt {limits.body_bytes} }}",
        ),
        *(_keys() if plan.keys else ()),
        "http-request set-var(txn.model) req.fhdr(x-fleet-model)",
        "http-request set-var(txn.model) path,field(4,/),field(1,:) if !{ var(txn.model) -m found } "
        "{ path_beg /v1/models/ }",
        "http-request set-var(txn.model) path,field(4,/) if !{ var(txn.model) -m found } { path_beg /v2/models/ }",
        "http-request set-var(txn.model) path,field(5,/) if !{ var(txn.model) -m found } "
        "{ path_beg /v2/repository/models/ }",
        *(_peek(limits) if plan.peeks else ()),
        *_choice(plan),
        *(_allowed() if plan.keys else ()),
        # A client that asks first gets its answer from here: many servers give none.
        f"http-request wait-for-body time {_ms(limits.body_timeout_s)} at-least 1 if {{ req.hdr(expect) -m found }}",
        "http-request del-header expect",
        "http-request set-var(txn.priority) req.fhdr(x-fleet-priority)",
        "http-request del-header x-fleet- -m beg",
        "http-request del-header x-forwarded- -m beg",
        "http-request del-header forwarded",
        "http-request del-header x-real-ip",
        "http-request set-header x-fleet-priority %[var(txn.priority)] if { var(txn.priority) -m found }",
        "http-request set-header x-request-id %[var(txn.id)]",
        "http-request set-header x-forwarded-for %[src]",
        f"http-request set-header x-forwarded-proto {'https' if door.tls else 'http'}",
        "http-request set-header x-forwarded-host %[req.fhdr(host)] if { req.fhdr(host) -m found }",
        "use_backend %[var(txn.pool)]",
    ]
    return _section("frontend door", lines)


def _keys() -> list[str]:
    """Who may come in. A key is 256 random bits: looking up its digest is as good as comparing it."""
    return [
        f"stick-table type string len 32 size 10k expire 1m store http_req_rate({RATE_WINDOW_S}s)",
        "http-request set-var(txn.key) http_auth_bearer,sha2(256),hex,lower,map(keys.map)",
        "http-request set-var(txn.key) req.fhdr(x-api-key),sha2(256),hex,lower,map(keys.map) "
        "unless { var(txn.key) -m found }",
        refusal(
            "unauthorized",
            "this needs an API key that is in force, as Authorization: Bearer KEY or x-api-key: KEY",
            "unless { var(txn.key) -m found }",
        ),
        "http-request track-sc0 var(txn.key)",
        "http-request set-var(txn.most) var(txn.key),map(rates.map)",
        refusal(
            "too_many_requests",
            "this key has used up its rate",
            "if { var(txn.most) -m found } { sc_http_req_rate(0),sub(txn.most) gt 0 }",
            retry_after=True,
        ),
        "http-request del-header authorization",
        "http-request del-header x-api-key",
    ]


def _allowed() -> list[str]:
    return [
        refusal(
            "forbidden",
            "this key is not for that pool",
            "unless { var(txn.key),concat(/,txn.pool),map(allowed.map) -m found }",
        )
    ]


def _peek(limits: BalancerLimits) -> list[str]:
    """The model that only the body names. What is not a model's name in a JSON body is no model."""
    asks = (
        "!{ var(txn.model) -m found } { path -m str /v1/embeddings /v1/chat/completions /v1/completions } "
        f"{{ req.hdr_val(content-length) gt 0 }} {{ req.hdr_val(content-length) le {PEEK} }}"
    )
    return [
        "acl asks_body path -m str /v1/embeddings /v1/chat/completions /v1/completions",
        f"http-request wait-for-body time {_ms(limits.body_timeout_s)} if {asks}",
        f"http-request set-var(txn.model) req.body,json_query('$.model') if {asks}",
        refusal(
            "bad_request",
            "cannot tell which model this is for: name it in the header x-fleet-model, or as model in a JSON body with "
            f"Content-Length of at most {PEEK} bytes, head included",
            "if asks_body !{ var(txn.model) -m found }",
        ),
    ]


def _choice(plan: Plan) -> list[str]:
    """Which pool: the model's; without a model any, the first that has a host."""
    lines = ["http-request set-var(txn.pool) var(txn.model),map(models.map)"]
    if plan.open_pools:
        lines += _first_of(plan.open_pools, "{ var(txn.model) -m found } !{ var(txn.pool) -m found }")
    else:
        lines.append(
            refusal(
                "not_found",
                "no pool serves model '%[var(txn.model),json]'; models served: %[str(served),map(texts.map),json]",
                "if { var(txn.model) -m found } !{ var(txn.pool) -m found }",
            )
        )
    for name, members in plan.groups:
        lines += _first_of(members, f"{{ var(txn.pool) -m str {name} }}")
    everyone = tuple(pool.id for pool in plan.pools)
    if not everyone:
        return [*lines, refusal("unavailable", "the balancer has no pools", "if TRUE", retry_after=True)]
    return lines + _first_of(everyone, "!{ var(txn.pool) -m found }")


def _first_of(pools: tuple[str, ...], condition: str) -> list[str]:
    """The first of `pools` that has a host, else the first. Earlier rules spoil the condition of those after."""
    lines = [
        f"http-request set-var(txn.pool) str({pool}) if {condition} {{ nbsrv({pool}) gt 0 }}"
        for pool in pools
    ]
    if len(pools) == 1:
        lines = []
    return [*lines, f"http-request set-var(txn.pool) str({pools[0]}) if {condition}"]


def _pool(door: Door, pool: PoolPlan) -> list[str]:
    config = pool.config
    name = pool.id
    interval = door.probe_interval_s
    lines = []
    if config.routing == "consistent_hash":
        lines += [
            f"balance hdr({header_name(config.session_header)})",
            "hash-type consistent",
            f"hash-balance-factor {BOUNDED_LOAD}",
        ]
    else:
        lines.append(f"balance {_BALANCE[config.routing]}")
    limit = round(config.request_timeout_s * 1000)
    own = f"{{ req.fhdr(x-request-timeout-ms) -m int 1:{min(limit, 2**31 - 1)} }}"
    lines += [
        f"timeout server {_ms(config.request_timeout_s)}",
        f"timeout queue {_ms(config.queue_timeout_s)}",
        f"http-request set-timeout server req.fhdr(x-request-timeout-ms) if {own}",
        f"http-request set-var(txn.own) int(1) if {own}",
        "http-response set-var(txn.busy) int(1) if { status 503 } { res.fhdr(retry-after) -m found }",
        "http-request set-priority-class int(0),sub(txn.priority) if { var(txn.priority) -m int 1:9 }",
        refusal(
            "unavailable",
            f"{config.queue_size} requests wait already for a host of this pool, which is as many as may",
            f"if {{ queue({name}) ge {config.queue_size} }} {{ queue({name}) gt 0 }}"
            if config.queue_size
            else f"if {{ be_conn_free({name}) eq 0 }}",
            retry_after=True,
        ),
        f"http-request lua.fleet_wait {name} {config.queue_size} {_ms(config.queue_timeout_s)[:-2]} "
        # A process that finishes its last requests says nbsrv 0, whatever its hosts do.
        f"if {{ nbsrv({name}) eq 0 }} !{{ stopping }}",
        refusal(
            "unavailable",
            f"pool %[str({name}),map(texts.map)] %[str({name}.hosts),map(texts.map)], %[var(txn.why)]",
            "if { var(txn.why) -m found }",
            retry_after=True,
        ),
        f"retries {RETRIES}",
        *_retries(pool),
        "option httpchk",
        "http-check send meth GET uri /readyz ver HTTP/1.1 hdr host fleet hdr user-agent fleet-balancer-probe "
        "hdr connection close",
        "http-check expect ! rstatus ^5" if pool.lenient else "http-check expect status 200",
    ]
    if pool.hops:
        lines.append("http-send-name-header x-fleet-slot")
    else:
        lines.append(
            f"http-request set-header authorization %[str({name}),map(tokens.map)] "
            f"if {{ str({name}),map(tokens.map) -m found }}"
        )
    soon = _ms(min(interval, max(0.1, interval / 4)))
    address = '"unix@${HOP}"' if pool.hops else "127.0.0.1:1"
    lines += [
        f"default-server check inter {_ms(interval)} fastinter {soon} downinter {soon} rise 1 fall 2 "
        f"observe layer4 error-limit 1 on-error mark-down pool-purge-delay 2s disabled"
        + (f" slowstart {_ms(config.slow_start_s)}" if config.slow_start_s else "")
        # Where to check is said when a host takes the place.
        + (" addr 127.0.0.1 port 1" if pool.hops else ""),
        f"server-template {name}s 1-{pool.places} {address}",
    ]
    return _section(f"backend {name}", lines)


def _retries(pool: PoolPlan) -> list[str]:
    """What may be sent again after its first bytes went out; what could not be sent always is (conn-failure)."""
    if pool.hops:
        # The hop closes without a word where, and only where, it could not reach the host: nothing was sent.
        return ["retry-on conn-failure empty-response"]
    if pool.config.retry == "idempotent":
        return ["retry-on conn-failure empty-response"]
    return [
        "retry-on conn-failure empty-response",
        "http-request disable-l7-retry unless METH_GET or { method HEAD } or { req.fhdr(idempotency-key) -m found }",
    ]


def _hop(pool: PoolPlan) -> list[str]:
    """HAProxy sets headers before it has chosen a host, so a host's own token needs a second step: the choice is made
    in the pool, whose servers all are one socket of this same process, and the server's name says which host it was."""
    lines = []
    for n in range(1, pool.places + 1):
        name = f"{pool.id}s{n}"
        lines += _section(
            f"backend {name}",
            [
                f"timeout server {_LONG}",
                "retries 0",
                "errorfile 503 /dev/null",
                f"http-request set-header authorization %[str({name}),map(tokens.map)] "
                f"if {{ str({name}),map(tokens.map) -m found }}",
                "server host 127.0.0.1:1 disabled",
            ],
        )
    return lines


def _hop_front() -> list[str]:
    return _section(
        "frontend hop",
        [
            'bind "unix@${HOP}" mode 600',
            "no log",
            f"timeout client {_LONG}",
            f"timeout http-keep-alive {_LONG}",
            f"timeout http-request {_LONG}",
            "http-request set-var(txn.slot) req.fhdr(x-fleet-slot)",
            "http-request del-header x-fleet-slot",
            "use_backend %[var(txn.slot)]",
        ],
    )
