"""The sections of the pools: how a host is picked, checked, waited for, and when a request is sent again. PURE."""

from __future__ import annotations

from fleet_balancer.haproxy.plan import Door, PoolPlan, header_name
from fleet_balancer.haproxy.section import ms, refusal, section

RETRIES = 3
# Load of the busiest host over the mean, in percent, before consistent_hash passes on to the next.
BOUNDED_LOAD = 150
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


def pool_section(door: Door, pool: PoolPlan) -> list[str]:
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
        f"timeout server {ms(config.request_timeout_s)}",
        f"timeout queue {ms(config.queue_timeout_s)}",
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
        f"http-request lua.fleet_wait {name} {config.queue_size} {ms(config.queue_timeout_s)[:-2]} "
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
    soon = ms(min(interval, max(0.1, interval / 4)))
    address = '"unix@${HOP}"' if pool.hops else "127.0.0.1:1"
    lines += [
        f"default-server check inter {ms(interval)} fastinter {soon} downinter {soon} rise 1 fall 2 "
        f"observe layer4 error-limit 1 on-error mark-down pool-purge-delay 2s disabled"
        + (f" slowstart {ms(config.slow_start_s)}" if config.slow_start_s else "")
        # Where to check is said when a host takes the place.
        + (" addr 127.0.0.1 port 1" if pool.hops else ""),
        f"server-template {name}s 1-{pool.places} {address}",
    ]
    return section(f"backend {name}", lines)


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


def hop(pool: PoolPlan) -> list[str]:
    """HAProxy sets headers before it has chosen a host, so a host's own token needs a second step: the choice is made
    in the pool, whose servers all are one socket of this same process, and the server's name says which host it was."""
    lines = []
    for n in range(1, pool.places + 1):
        name = f"{pool.id}s{n}"
        lines += section(
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


def hop_front() -> list[str]:
    return section(
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
