"""The state folder of a fleet: its journal, tokens, daemon files and logs, readable by their owner only."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet_controller.spec import FleetSpec

SQLITE = "sqlite:///"
DEFAULT_STATE = SQLITE + "default"


class Locked(Exception):
    """Somebody else holds the lock; the message says who."""


class StateFolder:
    """Paths and secrets of one fleet on the operator's machine."""

    def __init__(self, path: Path, journal_url: str) -> None:
        self.path = path
        self.journal_url = journal_url

    @classmethod
    def of(cls, spec: FleetSpec) -> StateFolder:
        """`.fleetctl/<fleet>` beside fleet.yaml, or the folder of the SQLite file that `controller.state` names."""
        default = spec.source.parent / ".fleetctl" / spec.fleet
        url = spec.controller.state
        if url == DEFAULT_STATE:
            return cls(default, f"{SQLITE}{default / 'state.db'}")
        if url.startswith(SQLITE):
            file = (spec.source.parent / Path(url.removeprefix(SQLITE)).expanduser()).resolve()
            return cls(file.parent, f"{SQLITE}{file}")
        return cls(default, url)

    def ensure(self) -> None:
        """Create the folder, 0700. Raises OSError."""
        for folder in (self.path, self.path / "tokens"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)

    def token_file(self, name: str) -> Path:
        """The bearer token of `name` ("balancer" or "host-NAME") as a 0600 file, made when there is none."""
        path = self.path / "tokens" / name
        if not path.exists():
            self.ensure()
            fresh = path.with_name(f".{name}.{secrets.token_hex(4)}")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32))
            try:
                os.link(fresh, path)  # whoever links first wins; both then read the same token
            except FileExistsError:
                pass
            fresh.unlink()
        return path

    def has_token(self, name: str) -> bool:
        """Whether it was made already."""
        return (self.path / "tokens" / name).exists()

    def token(self, name: str) -> str:
        return self.token_file(name).read_text().strip()

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock `name` of this fleet; it ends with the process, however that ends.

        Raises Locked, naming the holder's process id.
        """
        self.ensure()
        with (self.path / f"{name}.lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise Locked(
                    f"process {file.read().strip() or '?'} holds the {name} lock in {self.path}"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
