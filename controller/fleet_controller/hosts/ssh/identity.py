"""With which keys we log in: the given key file, or the SSH agent and the usual files. Never asks for anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.pkey import PublicBlob, UnknownKeyType

from fleet_controller.hosts.bounded import bounded
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.ssh.known_hosts import fingerprint

_USUAL = ("id_ed25519", "id_ecdsa", "id_rsa")
# sshd closes the connection after six failed keys (MaxAuthTries), and counts them against us.
MAX_KEYS = 5
_AGENT_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Identity:
    """A key that can sign, and how to name it to a person."""

    key: paramiko.PKey
    name: str


@contextmanager
def identities(host: str, identity_file: Path | None) -> Iterator[list[Identity]]:
    """The keys to try, in order, at most MAX_KEYS; the SSH agent signs with its own while this is open.

    Raises HostFailure (kind "identity") when there is none.
    """
    agent = _agent()
    try:
        held = (
            [Identity(key, f"{key.comment or 'a key'} in the SSH agent") for key in agent.get_keys()]
            if agent
            else []
        )
        yield _chosen(host, identity_file, held)
    finally:
        if agent is not None:
            agent.close()


def _agent() -> paramiko.Agent | None:
    try:
        return bounded(paramiko.Agent, _AGENT_TIMEOUT_S)
    except (TimeoutError, paramiko.SSHException, OSError):
        return None  # an agent that does not answer holds nothing


def _chosen(host: str, identity_file: Path | None, held: list[Identity]) -> list[Identity]:
    if identity_file is not None:
        return [_from_file(host, identity_file, held)]
    found = list(held)
    locked = []
    for name in _USUAL:
        path = Path.home() / ".ssh" / name
        if path.exists():
            try:
                one = _from_file(host, path, held)
            except HostFailure as failure:
                locked.append(failure)
                continue
            if all(one.key.asbytes() != other.key.asbytes() for other in found):
                found.append(one)
    if found:
        return found[:MAX_KEYS]
    if locked:
        raise locked[0]
    raise HostFailure(
        host,
        "identity",
        "there is no SSH key to log in with: no SSH agent holds one, and ~/.ssh has none of "
        + ", ".join(_USUAL),
        "Name one in ssh.identity_file, or make one with `ssh-keygen -t ed25519` and put it on the host with"
        " `ssh-copy-id`",
    )


def _from_file(host: str, path: Path, held: list[Identity]) -> Identity:
    # The key whose public half lies beside the file may be unlocked in the agent already.
    public = _public_half(path)
    for one in held:
        if public is not None and one.key.asbytes() == public:
            return Identity(one.key, f"{path} in the SSH agent")
    try:
        key = paramiko.PKey.from_path(path)
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
    try:
        words = path.with_name(path.name + ".pub").read_text().split()
        return PublicBlob.from_string(" ".join(words[:2])).key_blob
    except (OSError, ValueError):
        return None


def _unusable(host: str, path: Path, what: str, next_step: str) -> HostFailure:
    return HostFailure(host, "identity", f"the SSH key {path} {what}", next_step)


def describe(identity: Identity) -> str:
    return f"{identity.name} ({fingerprint(identity.key.asbytes())})"
