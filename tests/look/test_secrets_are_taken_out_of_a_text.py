"""The redactor: what is known by value never comes out, what looks like a secret neither, and the rest stays."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleetctl.support.redact import MARK, Redactor

# Characters that a marker of ours does not have, so that no marker can be taken for a secret.
SECRET = st.text(st.characters(codec="utf-8", exclude_characters=MARK + " \n\r\t"), min_size=5, max_size=40)
AROUND = st.text(st.characters(codec="utf-8"), max_size=60)
WRITTEN = st.sampled_from(
    [
        lambda s: s,
        lambda s: json.dumps({"x": s}),
        lambda s: json.dumps({"x": s}, ensure_ascii=False),
        lambda s: json.dumps(json.dumps(s))[1:-1],
        lambda s: quote(s, safe=""),
        lambda s: repr(s),
    ]
)


@settings(deadline=None)
@given(st.lists(SECRET, min_size=1, max_size=5), st.lists(AROUND, min_size=6, max_size=6), WRITTEN)
def test_a_known_secret_never_comes_out(secrets, around, written):
    text = around[0] + "".join(
        written(secret) + between for secret, between in zip(secrets, around[1:], strict=False)
    )
    out = Redactor(secrets).text(text)
    for secret in secrets:
        assert secret not in out
        assert quote(secret, safe="") not in out
        assert json.dumps(secret)[1:-1] not in out


@settings(deadline=None)
@given(st.lists(SECRET, min_size=2, max_size=4), AROUND)
def test_secrets_that_overlap_leave_nothing_of_either(secrets, around):
    joined = secrets[0] + secrets[1][2:]
    out = Redactor([joined, secrets[0], *secrets]).text(f"{around}{joined}{around}")
    assert joined not in out and secrets[0] not in out


@settings(deadline=None)
@given(AROUND)
def test_a_short_secret_stays_in_words_but_not_by_itself(around):
    out = Redactor(["zq"]).text(f"{around} zq, 'zq' zq=1 zqueue")
    assert "zqueue" in out or "zqueue" in around
    assert " zq," not in out and "'zq'" not in out


HIDDEN = st.text(
    "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789_+.!%^*", min_size=8, max_size=40
).filter(lambda s: not s.isdigit())


@pytest.mark.parametrize(
    "form",
    [
        "password: {}",
        "  bmc_password : {}\n",
        'password = "{}"',
        "PASSWORD={}",
        "export HF_TOKEN={} # mine",
        '{{"api_key": "{}"}}',
        "{{'client_secret': '{}'}}",
        '"{{\\"access_token\\": \\"{}\\"}}"',
        "AWS_SECRET_ACCESS_KEY={}",
        "Authorization: Bearer {}",
        "authorization: {}",
        "('authorization', 'Token {}')",
        "x-api-key: {}",
        "curl -H 'Authorization: Bearer {}' https://x",
        "sent bearer {} to it",
        "Set-Cookie: session={}; Path=/",
        "https://user:{}@pypi.example.com/simple",
        "postgresql+psycopg://fleet:{}@db:5432/fleet",
        "pip --index-url https://{}@pypi.example.com/simple",
        "ipmitool --password {} chassis",
        "ipmitool --password={} chassis",
        '["curl", "--token", "{}"]',
        "https://bucket.s3/x?X-Amz-Signature={}&a=1",
        "private_key: |\n  {}\n  {}\nnext: 1",
        "- passphrase: >-\n    {}\n",
        "passphrase: correct horse {} staple",
        "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\\n{}\\n-----END RSA PRIVATE KEY-----",
    ],
)
@settings(deadline=None, max_examples=30)
@given(hidden=HIDDEN, before=st.sampled_from(["", "2026-01-01 INFO: ", "x\n"]))
def test_what_looks_like_a_secret_is_taken_out(form, hidden, before):
    if form.endswith("\n") or "\nnext" in form:
        before = ""  # a block of YAML begins a line
    out = Redactor().text(before + form.replace("{}", hidden).replace("{{", "{").replace("}}", "}"))
    assert hidden not in out
    assert MARK in out


@pytest.mark.parametrize(
    "text",
    [
        "gh" + "p_" + "a1B2" * 9,
        "hf_" + "abcD" * 8,
        "AKIA" + "ABCD1234" * 2,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "fleet-" + "aZ09_-" * 8,
        "Basic " + base64.b64encode(b"user:pass word").decode(),
    ],
)
def test_keys_that_are_known_by_their_beginning(text):
    assert text.removeprefix("Basic ") not in Redactor().text(f"it said {text}, then left")


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens: 512",
        '{"prompt_tokens": 17, "token": null}',
        "password_file: ~/.bmc/password",
        "password_env: BMC_PASSWORD",
        '"token_file": "/state/tokens/balancer"',
        "keys: required",
        "tls: {certificate: tls/certificate.pem, key: tls/key.pem}",
        "uri: qemu+ssh://root@hypervisor/system",
        "http://127.0.0.1:8080/v1/models/tiny:predict",
        "a password is required",
        "sudo asks for a password here",
        "gpu-a: the token of the host is wrong.",
        "sha256 4f5e",
        "2026-11-22 18:51:31,123 INFO listening on http://127.0.0.1:1",
        "{}",
        "",
    ],
)
def test_what_is_no_secret_stays(text):
    assert Redactor(["Zk9-very-secret"]).text(text) == text


@settings(deadline=None)
@given(AROUND, SECRET)
@example("password: |\n  a\n", "-----BEGIN PRIVATE KEY-----")
def test_once_is_enough(around, secret):
    redactor = Redactor([secret])
    once = redactor.text(f"password={around} {secret}\ntoken: {around}")
    assert redactor.text(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "password" * 120_000,
        "://a:" * 200_000,
        "token=" * 150_000,
        '"' * 1_000_000,
        "-----BEGIN PRIVATE KEY-----" * 3000,
        " " * 1_000_000,
        "a." * 500_000,
    ],
)
def test_a_megabyte_of_anything_takes_a_moment(text):
    began = time.process_time()
    Redactor(["x" * 40, "y" * 43]).text(text)
    assert time.process_time() - began < 10
