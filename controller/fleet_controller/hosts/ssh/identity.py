"""With which keys we log in: those of the key files and of the SSH agent, and certificates for them. Never asks."""

from __future__ import annotations

import copy
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.agent import AgentKey, AgentSSH
from paramiko.pkey import PublicBlob, UnknownKeyType

from fleet_controller.hosts.bounded import bounded
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.ssh import certificate
from fleet_controller.hosts.ssh.certificate import SUFFIX
from fleet_controller.hosts.ssh.known_hosts import fingerprint
from fleet_controller.hosts.ssh.server import KeyChoice

_USUAL = ("id_ed25519", "id_ecdsa", "id_rsa")
# sshd closes the connection after six failed keys (MaxAuthTries), and counts them against us.
MAX_KEYS = 5
_AGENT_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Identity:
    """A key that can sign, and how to name it to a person. With a certificate, `key.public_blob` is that."""

    key: paramiko.PKey
    name: str


class _Agent(AgentSSH):
    """The SSH agent behind a socket; paramiko's own Agent knows only the one of SSH_AUTH_SOCK."""

    def __init__(self, path: str) -> None:
        super().__init__()
        line = socket.socket(socket.AF_UNIX)
        try:
            line.settimeout(_AGENT_TIMEOUT_S)
            line.connect(path)
            self._connect(line)  # type: ignore[attr-defined]
        except BaseException:
            line.close()
            raise

    def close(self) -> None:
        self._close()  # type: ignore[attr-defined]


@contextmanager
def identities(host: str, choice: KeyChoice) -> Iterator[list[Identity]]:
    """The keys to try, in order, at most MAX_KEYS; the SSH agent signs with its own while this is open.

    Raises HostFailure (kind "identity") when there is none.
    """
    agent = _agent(choice.agent)
    try:
        held = (
            [Identity(key, f"{key.comment or 'a key'} in the SSH agent") for key in agent.get_keys()]
            if agent
            else []
        )
        yield _chosen(host, choice, held)
    finally:
        if agent is not None:
            agent.close()


def _agent(path: str | None) -> _Agent | None:
    if path is None:
        return None
    try:
        return bounded(lambda: _Agent(path), _AGENT_TIMEOUT_S)
    except (TimeoutError, paramiko.SSHException, OSError):
        return None  # an agent that does not answer holds nothing


def _chosen(host: str, choice: KeyChoice, held: list[Identity]) -> list[Identity]:
    if choice.required:
        return _certified(choice, [_from_file(host, path, held) for path in choice.files], held)
    files = choice.files or _usual()
    named, unusable = [], []
    for path in files:
        try:
            named.append(_from_file(host, path, held))
        except HostFailure as failure:
            if path.exists():
                unusable.append(failure)
    # As ssh does it: what the files name goes first where files were named, the agent's others only if they may.
    plain = [one for one in held if not _is_certificate(one)]
    others = [] if choice.only else plain
    found = _without_doubles([*named, *others] if choice.files else [*others, *named])
    if found:
        return _certified(choice, found, held)[:MAX_KEYS]
    if unusable:
        raise unusable[0]
    raise HostFailure(
        host,
        "identity",
        "there is no SSH key to log in with: "
        + ("of the SSH agent's keys none may be used" if held else "no SSH agent holds one")
        + f", and there is none of {', '.join(str(path) for path in files[:6])}",
        "Name one in ssh.identity_file, or make one with `ssh-keygen -t ed25519` and put it on the host with"
        " `ssh-copy-id`",
    )


def _without_doubles(found: Iterable[Identity]) -> list[Identity]:
    kept: dict[bytes, Identity] = {}
    for one in found:
        kept.setdefault(one.key.asbytes(), one)
    return list(kept.values())


def _certified(choice: KeyChoice, found: list[Identity], held: list[Identity]) -> list[Identity]:
    """Before each key the certificates for it: beside its file, named in ~/.ssh/config, or in the agent."""
    named = choice.files or _usual()
    paths = (*choice.certificates, *(path.with_name(f"{path.name}-cert.pub") for path in named))
    blobs = [(str(path), blob) for path in dict.fromkeys(paths) if (blob := _public_blob(path)) is not None]
    blobs += [
        (one.name, PublicBlob.from_message(paramiko.Message(one.key.blob)))
        for one in held
        if isinstance(one.key, AgentKey) and _is_certificate(one)
    ]
    tried = []
    for one in found:
        for name, blob in blobs:
            if _is_for(blob, one.key):
                tried.append(Identity(_with(one.key, blob), f"{one.name} with the certificate {name}"))
        tried.append(one)
    return tried


def _is_certificate(one: Identity) -> bool:
    return one.key.get_name().endswith(SUFFIX)


def _is_for(blob: PublicBlob, key: paramiko.PKey) -> bool:
    try:
        return certificate.certified_key(blob.key_blob) == key.asbytes()
    except certificate.BadCertificate:
        return False


def _with(key: paramiko.PKey, blob: PublicBlob) -> paramiko.PKey:
    """The same key, which shows `blob` when it logs in."""
    if isinstance(key, AgentKey):  # a copy of one looks for its own attributes without an end
        same: paramiko.PKey = AgentKey(key.agent, key.blob, key.comment)
    else:
        same = copy.copy(key)
    same.public_blob = blob
    return same


def _usual() -> tuple[Path, ...]:
    return tuple(Path.home() / ".ssh" / name for name in _USUAL)


def _from_file(host: str, path: Path, held: list[Identity]) -> Identity:
    # The key whose public half lies beside the file may be unlocked in the agent already.
    public = _public_half(path)
    for one in held:
        if public is not None and one.key.asbytes() == public:
            return Identity(one.key, f"{path} in the SSH agent")
    try:
        key = paramiko.PKey.from_path(path)
        key.public_blob = (
            None  # paramiko has found the certificate beside it; which one is shown is decided here
        )
    except FileNotFoundError:
        raise _unusable(host, path, "does not exist", "Correct ssh.identity_file, or make the key") from None
    except PermissionError:
        raise _unusable(
            host, path, "may not be read by this user", "Give this user the right to read it"
        ) from None
    except (paramiko.PasswordRequiredException, TypeError):
        # cryptography says TypeError for a key that needs a passphrase.
        raise _unusable(
            host,
            path,
            "is locked with a passphrase, and no SSH agent holds it",
            f"Unlock it once with `ssh-add {path}` (start an agent with `eval $(ssh-agent)`)",
        ) from None
    except (
        ValueError,
        UnsupportedAlgorithm,
        paramiko.SSHException,
        UnknownKeyType,
        OSError,
    ) as error:
        raise _unusable(
            host, path, f"is not a private key that can be used ({error})", "Name another key"
        ) from None
    return Identity(key, str(path))


def _public_half(path: Path) -> bytes | None:
    blob = _public_blob(path.with_name(path.name + ".pub"))
    return None if blob is None else blob.key_blob


def _public_blob(path: Path) -> PublicBlob | None:
    try:
        return PublicBlob.from_string(" ".join(path.read_text().split()[:2]))
    except (OSError, ValueError):
        return None


def _unusable(host: str, path: Path, what: str, next_step: str) -> HostFailure:
    return HostFailure(host, "identity", f"the SSH key {path} {what}", next_step)


def describe(identity: Identity) -> str:
    return f"{identity.name} ({fingerprint(identity.key.asbytes())})"
