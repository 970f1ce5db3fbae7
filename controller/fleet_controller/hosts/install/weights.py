"""Where a model's weights come from: a file here, a web server, or a folder that the hosts have mounted.

They are named by their sha256, so a host that has them once has them for every version of every model and fleet of
that user. From a web server they are fetched once, to this machine, going on where an earlier try was cut off.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import urllib3

from fleet_controller.hosts.failure import HostFailure, brief
from fleet_controller.hosts.install.sending import in_words
from fleet_controller.hosts.install.shelf import Shelf, alone, hashed, unwritten

Say = Callable[[str], None]
_CHUNK = 1 << 20
_TELL_S = 1.0
_TIMEOUT = urllib3.Timeout(connect=15.0, read=60.0)
# A connection that breaks is made again so often before the whole fails; what was fetched stays.
_TRIES = 5


@dataclass(frozen=True)
class WeightsFile:
    """One file. `path` is where in the release the model finds it; exactly one of the sources is given."""

    path: str
    sha256: str
    file: Path | None = None
    url: str | None = None
    mount: str | None = None

    @property
    def source(self) -> str:
        """For messages."""
        return self.mount or self.url or str(self.file)


class Weights:
    """Weights that this machine has, on a shelf in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.shelf = Shelf(folder / "weights")

    def get(self, wanted: WeightsFile, say: Say) -> Path:
        """The file here, with the content that is pinned. Raises HostFailure (host "this machine")."""
        found = self.shelf.find(wanted.sha256)
        if found is not None:
            return found
        if wanted.url is not None:
            return self._fetch(wanted, wanted.url, say)
        assert wanted.file is not None, "weights on a mount are never sent"
        try:
            say(f"checking {wanted.file.name} ({in_words(wanted.file.stat().st_size)})")
            actual = hashed(wanted.file)
        except OSError as error:
            raise HostFailure(
                "this machine",
                "release",
                f"the weights {wanted.file} cannot be read: {error.strerror or error}",
                "Bring the file, or correct its path in fleet.yaml",
            ) from error
        if actual != wanted.sha256:
            raise _other(str(wanted.file), actual, wanted.sha256)
        return wanted.file

    def _fetch(self, wanted: WeightsFile, url: str, say: Say) -> Path:
        partial = self._folder / "weights" / f".{wanted.sha256}.part"
        with alone(self._folder / "weights" / ".lock", lambda: say("waiting: weights are being fetched")):
            found = self.shelf.find(wanted.sha256)
            if found is not None:
                return found
            for left in reversed(range(_TRIES)):
                try:
                    digest = _download(url, partial, say)
                    break
                except (urllib3.exceptions.HTTPError, _Cut) as error:
                    if not left:
                        raise HostFailure(
                            "this machine",
                            "release",
                            f"{url} cannot be fetched: {brief(str(error))}",
                            "Check the address and the network; the next try goes on where this one stopped",
                        ) from error
                    time.sleep(0.5 * (_TRIES - left))
                except OSError as error:
                    raise unwritten(partial.parent, error) from error
            if digest != wanted.sha256:
                partial.unlink(missing_ok=True)
                raise _other(url, digest, wanted.sha256)
            return self.shelf.take(partial, wanted.sha256, Path(wanted.path).name)


class _Cut(Exception):
    """The server ended before the file did."""


def _download(url: str, partial: Path, say: Say) -> str:
    """Fetch `url` behind what `partial` has of it; the sha256 of the whole."""
    digest = hashlib.sha256()
    there = 0
    if partial.exists():
        with partial.open("rb") as before:
            while chunk := before.read(_CHUNK):
                digest.update(chunk)
                there += len(chunk)
    headers = {"Range": f"bytes={there}-"} if there else {}
    pool = urllib3.PoolManager(
        retries=urllib3.Retry(connect=0, read=0, redirect=5, status=0), timeout=_TIMEOUT
    )
    # What came before a cut is kept; that it is not all is seen below.
    answer = pool.request("GET", url, headers=headers, preload_content=False, enforce_content_length=False)
    try:
        if there and answer.status == 416:
            return digest.hexdigest()  # there is nothing behind it
        if there and answer.status == 200:  # it knows no ranges: from the beginning
            digest, there = hashlib.sha256(), 0
        elif answer.status not in (200, 206):
            raise HostFailure(
                "this machine",
                "release",
                f"{url} answers {answer.status} {answer.reason or ''}".rstrip(),
                "Correct the address in fleet.yaml, or see to it that this machine may fetch it",
            )
        length = answer.headers.get("Content-Length")
        total = there + int(length) if length and length.isdigit() else None
        partial.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        told = time.monotonic()
        with partial.open("r+b" if there else "wb") as out:
            out.seek(there)
            for chunk in answer.stream(_CHUNK):
                out.write(chunk)
                digest.update(chunk)
                there += len(chunk)
                if time.monotonic() - told > _TELL_S:
                    told = time.monotonic()
                    share = f"{100 * there // total} % of {in_words(total)}" if total else in_words(there)
                    say(f"fetching {url.rpartition('/')[2][:60]}: {share}")
        if total is not None and there < total:
            raise _Cut(f"{there} of {total} bytes came")
    finally:
        answer.close()
        pool.clear()
    return digest.hexdigest()


def _other(what: str, actual: str, pinned: str) -> HostFailure:
    return HostFailure(
        "this machine",
        "release",
        f"{what} has the sha256 {actual}, but {pinned} is pinned",
        "It is another file or was changed: bring the right one, or pin this one if you trust it",
    )
