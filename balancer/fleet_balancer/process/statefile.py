"""What a balancer must know again after a crash, and the file where it stands.

Written whole into a new file and renamed, off the event loop, mode 0600: it holds the hosts' tokens. A file that can't
be read, or makes no sense, is ignored with one line in the log: the balancer then begins as if it were new.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet_balancer.process.condition import Condition as Condition
from fleet_balancer.process.mistake import mistakes
from fleet_balancer.roster import Roster

log = logging.getLogger(__name__)


class SavedState(BaseModel):
    """The file's content."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["fleetctl/balancer-state/v1"] = Field(
        default="fleetctl/balancer-state/v1", alias="schema"
    )
    roster: Roster
    condition: Condition = Condition()


def read_state(path: Path) -> SavedState | None:
    """What the last process left; None where there is nothing that can be used."""
    try:
        return SavedState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or str(error)
    except ValidationError as error:
        reason = mistakes(error, "the file")
    log.error("the state file %s is ignored, hosts come from the next list: %s", path, reason)
    return None


class StateKeeper:
    """Writes the state where it changed. Of several changes during one write only the last is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = b""
        self._lock = asyncio.Lock()
        self._waiting = b""
        self._failed = False

    async def keep(self, state: SavedState) -> None:
        """Returns once `state`, or one that came after it, is in the file; a full disk is a line in the log."""
        content = state.model_dump_json(by_alias=True).encode()
        self._waiting = content
        async with self._lock:
            newest = self._waiting
            if newest == self._last:
                return
            try:
                await asyncio.to_thread(self._write, newest)
                self._last = newest
                self._failed = False
            except OSError as error:
                if not self._failed:
                    log.error(
                        "the state file %s can't be written: %s; drains, weights and ejections would not outlive "
                        "this process; it is tried again at the next change",
                        self._path,
                        error.strerror,
                    )
                self._failed = True

    def _write(self, content: bytes) -> None:
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
