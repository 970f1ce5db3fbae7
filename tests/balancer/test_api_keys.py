"""Who comes in with which key, how often, and to which pools. No process, no clock."""

from __future__ import annotations

import hashlib
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_balancer.access.keys import SLOTS, AwaitedKeys, Keyring
from fleet_wire.balancer import ApiKey
from fleet_wire.refusal import Refusal


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def key(name: str, **more: object) -> ApiKey:
    """The key whose text is its name."""
    return ApiKey.model_validate({"name": name, "sha256": digest(name), **more})


def bearer(text: str) -> bytes:
    return f"Authorization: Bearer {text}\r\n".encode()


def refusal(ring: Keyring, authorization: bytes = b"", api_key: bytes = b"", now: float = 0.0) -> Refusal:
    with pytest.raises(Refusal) as caught:
        ring.check(authorization, api_key, now)
    return caught.value


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (bearer("alice"), b""),
        (b"authorization:bearer   alice  \r\n", b""),
        (b"AUTHORIZATION: BEARER alice\r\n", b""),
        (b"", b"x-api-key: alice\r\n"),
        (b"", b"X-API-Key:alice\r\n"),
        (bearer("alice"), b"x-api-key: wrong\r\n"),
    ],
)
def test_a_key_is_taken_from_either_header(authorization: bytes, api_key: bytes) -> None:
    ring = Keyring([key("alice", share=2.5), key("bob")])
    for _ in range(2):  # the second time from memory
        use = ring.check(authorization, api_key, 0.0)
        assert (use.name, use.share, use.pools) == ("alice", 2.5, None)


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (b"", b""),
        (bearer("mallory"), b""),
        (bearer(""), b""),
        (bearer(digest("alice")), b""),
        (b"authorization: Basic alice\r\n", b""),
        (b"authorization: alice\r\n", b""),
        (b"authorization: Bearer\r\n", b""),
        (b"", b"x-api-key: Bearer alice\r\n"),
        (bearer("mallory"), b"x-api-key: alice\r\n"),
        (bearer("alice bob"), b""),
        (b"authorization: Bearer \xff\xfe\r\n", b""),
    ],
)
def test_anything_else_is_refused_with_a_challenge(authorization: bytes, api_key: bytes) -> None:
    refused = refusal(Keyring([key("alice"), key("bob")]), authorization, api_key)
    assert refused.status == 401
    assert ("www-authenticate", "Bearer") in refused.headers()
    assert "mallory" not in refused.message


def test_an_empty_ring_lets_nobody_in() -> None:
    assert refusal(Keyring([]), bearer("alice")).code == "unauthorized"


def test_until_the_keys_are_known_who_comes_is_told_to_come_again() -> None:
    refused = refusal(AwaitedKeys(), bearer("alice"))
    assert (refused.status, refused.retry_after_s) == (503, 1.0)


def test_a_key_for_one_pool_is_not_for_another() -> None:
    use = Keyring([key("alice", pools=["one", "two"])]).check(bearer("alice"), b"", 0.0)
    use.allow("two")
    with pytest.raises(Refusal) as caught:
        use.allow("three")
    assert (caught.value.status, caught.value.code) == (403, "forbidden")


def test_a_rate_lets_a_burst_through_and_says_when_the_next_is_due() -> None:
    ring = Keyring([key("alice", rate_per_s=10, burst=3), key("bob")])
    for _ in range(3):
        ring.check(bearer("alice"), b"", 100.0)
    refused = refusal(ring, bearer("alice"), now=100.0)
    assert (refused.status, refused.code) == (429, "too_many_requests")
    assert refused.retry_after_s == pytest.approx(0.1)
    assert ("retry-after", "1") in refused.headers()
    for _ in range(1000):
        ring.check(bearer("bob"), b"", 100.0)
    # Refused requests cost nothing: the next one is due when it was said to be.
    ring.check(bearer("alice"), b"", 100.1)
    refusal(ring, bearer("alice"), now=100.1)


@given(
    st.floats(0.1, 1000),
    st.integers(1, 50) | st.none(),
    st.lists(st.floats(0, 0.5), min_size=1, max_size=200),
)
def test_nobody_gets_more_than_the_rate_and_a_burst(
    rate: float, burst: int | None, pauses: list[float]
) -> None:
    ring = Keyring([key("alice", rate_per_s=rate, burst=burst)])
    now, admitted = 1000.0, 0
    for pause in pauses:
        now += pause
        try:
            ring.check(bearer("alice"), b"", now)
            admitted += 1
        except Refusal as refused:
            assert refused.retry_after_s is not None and refused.retry_after_s > 0
            assert refused.retry_after_s <= 1 / rate + 1e-6
    allowed = burst if burst is not None else max(1, -(-rate // 1))
    assert admitted <= allowed + rate * (now - 1000.0) + 1e-6 * len(pauses) + 1e-6
    assert admitted >= 1


def test_a_new_list_gives_nobody_a_second_burst() -> None:
    slots = array("d", bytes(8 * SLOTS))
    Keyring([key("alice", rate_per_s=1, burst=1)], slots).check(bearer("alice"), b"", 50.0)
    after = Keyring([key("a"), key("alice", rate_per_s=1, burst=1), key("z")], slots)
    assert refusal(after, bearer("alice"), now=50.5).code == "too_many_requests"
    after.check(bearer("alice"), b"", 51.0)


def test_processes_that_share_the_slots_share_the_rate() -> None:
    shared = memoryview(bytearray(8 * SLOTS)).cast("d")
    rings = [
        Keyring(keys, shared)
        for keys in ([key("a", rate_per_s=5, burst=4), key("b")], [key("b"), key("a", rate_per_s=5, burst=4)])
    ]
    for number in range(4):
        rings[number % 2].check(bearer("a"), b"", 10.0)
    for ring in rings:
        assert refusal(ring, bearer("a"), now=10.0).code == "too_many_requests"


def test_a_revoked_key_is_not_remembered() -> None:
    before = Keyring([key("alice")])
    before.check(bearer("alice"), b"", 0.0)
    assert refusal(Keyring([key("bob")]), bearer("alice")).code == "unauthorized"


def test_what_is_remembered_of_header_lines_is_bounded() -> None:
    ring = Keyring([key("alice")])
    for spaces in range(0, 20_000, 7):
        ring.check(b"authorization: Bearer " + b" " * spaces + b"alice\r\n", b"", 0.0)
    assert sum(len(line) for line in ring._seen) < 4096 * 256


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ([key("a"), key("a", sha256=digest("b"))], "listed twice"),
        ([key("a"), key("b", sha256=digest("a"))], "same key"),
        ([key("a", burst=5)], "no rate_per_s"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(keys: list[ApiKey], why: str) -> None:
    with pytest.raises(Refusal, match=why) as caught:
        Keyring(keys)
    assert caught.value.status == 400
