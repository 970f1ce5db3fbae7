"""ReleaseBook: what the releases that were installed from this machine are made of, one small file each.

In the state folder, beside the packed releases. It is there to tell people what differs; nothing is decided by it.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from fleet_controller.actuate import Site
from fleet_controller.foresight.makeup import Makeup, makeup
from fleet_controller.statefolder import StateFolder

KEPT = 100


class ReleaseBook:
    """The book in `folder`. Reading it never fails: what can't be read is not known."""

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder.path / "releases"

    def read(self, key: str | None) -> Makeup | None:
        if not key or not key.isalnum():
            return None
        try:
            return Makeup.model_validate_json(self._page(key).read_bytes())
        except (OSError, ValidationError):
            return None

    def note(self, site: Site) -> None:
        """Write down what the releases of `site` are made of. A disk that is full keeps it from nothing else."""
        for pool in site.spec.pools:
            key = site.releases[pool.name].key
            if not self._page(key).exists():
                self._write(key, made_of(site, pool.name))

    def _write(self, key: str, content: Makeup) -> None:
        fresh = self._page(key).with_suffix(f".{os.getpid()}.new")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.write_text(content.model_dump_json())
            fresh.replace(self._page(key))
            pages = sorted(self._folder.glob("*.makeup.json"), key=lambda p: p.stat().st_mtime)
            for old in pages[:-KEPT]:
                old.unlink(missing_ok=True)
        except OSError:
            fresh.unlink(missing_ok=True)

    def _page(self, key: str) -> Path:
        return self._folder / f"{key}.makeup.json"


def made_of(site: Site, pool: str) -> Makeup:
    """What the release of `pool` is made of."""
    release = site.releases[pool]
    models = [site.spec.model(name) for name in site.spec.pool(pool).models]
    return makeup(release.files, release.requirements, models)
