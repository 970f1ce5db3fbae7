"""What must not leave the operator's machine, taken out of a text: known secrets by their value, others by their look.

PURE. It would rather take out too much. What is known by value is found in each form in which it is usually written
(as it is, in JSON, in a URL); what is not known is found by what stands before it (`password:`, `Authorization:`,
`--token`), around it (a PEM block, `user:...@` in a URL) or by its own beginning (`ghp_`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from urllib.parse import quote, quote_plus

MARK = "[redacted]"
# A shorter one is taken out only where it stands by itself: "on" is in every sentence.
SHORT = 5

# A name whose value is a secret whatever it looks like, and one whose value is a secret unless it is a plain number
# ("max_tokens: 512"). Lengths are bounded everywhere: a log may hold a line of a megabyte.
_SURE = r"passw(?:or)?d|passphrase|secret|private[_.-]?key|credentials?|pwd"
_LIKELY = (
    r"token|api[_.-]?key|access[_.-]?key|auth[_.-]?key|encryption[_.-]?key|signature|authorization|cookie"
)
_BEHIND = r"[A-Za-z0-9_.-]{0,40}"
# What only says where a secret is.
_WHERE = re.compile(r"(?:file|path|env|dir|folder|url|type|count|limit)s?\Z", re.IGNORECASE)
_QUOTED = r"\"(?:\\.|[^\"\\\n])*\"?|'(?:''|[^'\n])*'?|\\+\"[^\"\n]*\"?"
_WORD = r"[^\s,;&\"'}\]]+"
_NEVER = re.compile(r"(?:true|false|null|none|~|[|>][-+0-9]*|[\[{].*)\Z", re.IGNORECASE)
_PLAIN = re.compile(r"-?\d{1,7}(?:\.\d+)?\Z|(?:required|off|on)\Z", re.IGNORECASE)

_PEM = re.compile(
    r"(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----)"
    r"(?:.{0,20000}?(-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----)|[A-Za-z0-9+/=\s\\]*)",
    re.DOTALL,
)
_HEADER = re.compile(
    r"(?i)(\b(?:proxy-)?authorization|\bx-api-key|\bx-auth-token|\b(?:set-)?cookie)"
    r"((?:\\?[\"'])?\s{0,9}[:=,]\s{0,9}(?:\\?[\"'])?)([^\r\n\"'\\]+)"
)
_SCHEME = re.compile(
    r"\b((?i:bearer)\s+)[^\s,;\"']{6,}|\b((?i:basic)\s+)(?=\S*[A-Z0-9=])[A-Za-z0-9+/]{8,}={0,2}"
)
_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,20}://)([^\s\"'<>/@:]{0,256}):([^\s\"'<>]{0,512})@")
_USER_ONLY = re.compile(r"(https?://)([^\s\"'<>/@:]{1,256})@")
_BLOCK = re.compile(
    rf"(?im)^([ \t]*)((?:- )?[\"']?[A-Za-z0-9_.-]{{0,60}}?(?:{_SURE}|{_LIKELY}){_BEHIND}[\"']?"
    r"[ \t]*:[ \t]*[|>][-+0-9]*[ \t]*\n)"
    r"((?:\1[ \t]+[^\n]*(?:\n|\Z)|[ \t]*\n)+)"
)
_LINE = re.compile(
    rf"(?im)^([ \t]*(?:- |export )?[\"']?[A-Za-z0-9_.-]{{0,60}}?)({_SURE}|{_LIKELY})({_BEHIND})"
    r"([\"']?[ \t]*[:=][ \t]*)([^\s\"'|>{\[#][^\n]*)"
)
_SEPARATOR = r"(?:\\?[\"'])?[ \t]*(?:=|:(?!//))[ \t]*"
# A passphrase has several words.
_SURE_PAIR = re.compile(rf"(?i)()({_SURE})({_BEHIND})({_SEPARATOR})({_QUOTED}|[^\n,;&\"'}}\]]+)")
_PAIR = re.compile(rf"(?i)()({_LIKELY})({_BEHIND})({_SEPARATOR})({_QUOTED}|{_WORD})")
_OPTION = re.compile(rf"(?i)(--?(?:{_SURE}|{_LIKELY}|pass)[\"']?(?:\s*,\s*|[ \t]+|=))({_QUOTED}|{_WORD})")
_FAMOUS = re.compile(
    r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{16,}"
    r"|sk-[A-Za-z0-9_-]{16,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|A[KS]IA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{30,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*|fleet-[A-Za-z0-9_-]{40,})"
)


class Redactor:
    """Takes secrets out of texts. `secrets` are those that are known by value."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if secret.strip() for form in _forms(secret.strip())}
        self._long = sorted((form for form in forms if len(form) >= SHORT), key=len, reverse=True)
        short = sorted((form for form in forms if len(form) < SHORT), key=len, reverse=True)
        self._short = (
            re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, short))})(?![A-Za-z0-9])")
            if short
            else None
        )

    def text(self, text: str) -> str:
        """`text` with MARK in the place of each secret."""
        text = _by_look(self._by_value(text))
        # What was cut may have brought together what is one again.
        return self._by_value(text)

    def _by_value(self, text: str) -> str:
        found = sorted(span for form in self._long if form in text for span in _spans(form, text))
        if found:
            text = _cut(text, found)
        return text if self._short is None else self._short.sub(MARK, text)


def _forms(secret: str) -> set[str]:
    """How a secret is written down: plain, in JSON, in a URL, line by line."""
    forms = {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        _quoted(secret, quote),
        _quoted(secret, quote_plus),
    }
    # A key file or a passphrase of several lines is written with other line ends, or indented.
    forms.update(line.strip() for line in secret.splitlines() if len(line.strip()) >= 2 * SHORT)
    return {form for form in forms if form}


def _quoted(secret: str, how: Callable[..., str]) -> str:
    return how(secret, safe="", errors="replace")


def _spans(form: str, text: str) -> Iterable[tuple[int, int]]:
    at = text.find(form)
    while at >= 0:
        yield at, at + len(form)
        at = text.find(form, at + 1)


def _cut(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """`text` with MARK for each span; those that overlap are one."""
    parts: list[str] = []
    done = 0
    for start, end in spans:
        if start >= done:
            parts += [text[done:start], MARK]
        done = max(done, end)
    return "".join([*parts, text[done:]])


def _by_look(text: str) -> str:
    text = _PEM.sub(lambda m: f"{m[1]}{MARK}{m[2] or ''}", text)
    text = _BLOCK.sub(lambda m: f"{m[1]}{m[2]}{m[1]}  {MARK}\n", text)
    text = _HEADER.sub(rf"\1\2{MARK}", text)
    text = _SCHEME.sub(lambda m: f"{m[1] or m[2]}{MARK}", text)
    text = _USERINFO.sub(rf"\1\2:{MARK}@", text)
    text = _USER_ONLY.sub(rf"\1{MARK}@", text)
    text = _OPTION.sub(_option, text)
    text = _LINE.sub(_pair, text)
    text = _SURE_PAIR.sub(_pair, text)
    text = _PAIR.sub(_pair, text)
    return _FAMOUS.sub(MARK, text)


def _option(match: re.Match[str]) -> str:
    return match[0] if MARK in match[2] else match[1] + MARK


def _pair(match: re.Match[str]) -> str:
    front, name, behind, between, value = match.groups()
    bare = value.strip("\\\"'")
    sure = re.fullmatch(_SURE, name, re.IGNORECASE) is not None
    if not bare or MARK in bare or _WHERE.search(behind) or _NEVER.match(bare):
        return match[0]
    if not sure and _PLAIN.match(bare.strip()):
        return match[0]
    edge = re.match(r"(?:\\*[\"'])?", value)
    quote_mark = edge[0] if edge else ""
    return f"{front}{name}{behind}{between}{quote_mark}{MARK}{quote_mark}"
