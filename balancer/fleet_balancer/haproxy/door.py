"""The section where clients connect: who may come in, which pool a request is for, what hosts are told of it. PURE."""

from __future__ import annotations

from fleet_balancer.haproxy.lines import ACCESS, FORMAT
from fleet_balancer.haproxy.plan import Door, Plan
from fleet_balancer.haproxy.section import ms, refusal, section
from fleet_wire.balancer import BalancerLimits

# How long a body may be for its model to be looked up in it, with the head that goes before.
PEEK = 64 * 1024
RATE_WINDOW_S = 10


def front(door: Door, plan: Plan) -> list[str]:
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
        f"http-request wait-for-body time {ms(limits.body_timeout_s)} at-least 1 if {{ req.hdr(expect) -m found }}",
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
    return section("frontend door", lines)


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
        f"http-request wait-for-body time {ms(limits.body_timeout_s)} if {asks}",
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
