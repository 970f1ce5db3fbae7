"""Logging in with keys, once the server is known to be the right one; a refused login is not repeated at once."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

import paramiko

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.ssh import identity
from fleet_controller.hosts.ssh.server import Server

# sshd and fail2ban count failed logins: at most 3 in 10 minutes are ours.
REFUSED_FOR_S = 200.0


class Login:
    """How we log in to one server, and until when it is left alone after it refused."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._refusal: tuple[HostFailure, float, object] | None = None

    def check(self) -> None:
        """Raises the HostFailure of a refusal that is not long ago, unless a key file or known_hosts changed."""
        if self._refusal is not None:
            failure, until, files = self._refusal
            if time.monotonic() < until and files == self._stamps():
                raise replace(failure)
            self._refusal = None

    def _stamps(self) -> list[int]:
        stamps = []
        keys = self._server.keys
        for path in (*keys.files, *keys.certificates, *self._server.known_hosts):
            with suppress(OSError):
                stamps.append(path.stat().st_mtime_ns)
        return stamps

    def perform(self, transport: paramiko.Transport) -> None:
        """Log in over a transport whose host key was verified. Raises HostFailure."""
        with identity.identities(self._server.label, self._server.keys) as found:
            self._try(transport, found)

    def _try(self, transport: paramiko.Transport, found: list[identity.Identity]) -> None:
        server = self._server
        user, timeout = server.user, server.connect_timeout
        until = time.monotonic() + timeout
        tried = []
        for one in found:
            tried.append(identity.describe(one))
            transport.auth_timeout = max(0.1, until - time.monotonic())
            try:
                more = transport.auth_publickey(user, one.key)
            except paramiko.BadAuthenticationType as error:
                raise self._refused(
                    f"it does not let {user} log in with a key (it offers: {', '.join(error.allowed_types)})",
                    "Allow it in the host's sshd_config: PubkeyAuthentication yes",
                ) from error
            except paramiko.AuthenticationException as error:
                if "timeout" in str(error).lower():
                    raise server.failure(
                        "timeout",
                        f"logging in as {user} was not done within {timeout:g} s",
                        "The host or its user database (LDAP, DNS) hangs; see its sshd log",
                    ) from error
                if transport.is_active():
                    continue
                break  # sshd hung up: too many keys
            except (paramiko.SSHException, EOFError, OSError) as error:
                if transport.is_active():
                    continue
                raise server.lost(f"logging in as {user}", error) from error
            if not more:
                return
            raise self._refused(
                f"it took the key {tried[-1]}, but wants more than a key ({', '.join(more)})",
                "Let a key be enough for this user: AuthenticationMethods publickey",
            )
        raise self._refused(
            f"it does not accept the login of {user}; tried {'; '.join(tried)}",
            f"Put the right public key into ~{user}/.ssh/authorized_keys on the host (`ssh-copy-id -p"
            f" {server.port} {user}@{server.address}`), or correct ssh.user or ssh.identity_file",
        )

    def _refused(self, cause: str, next_step: str) -> HostFailure:
        failure = self._server.failure("auth", cause, next_step)
        self._refusal = (failure, time.monotonic() + REFUSED_FOR_S, self._stamps())
        return failure
