"""The bundle itself: a .tar.gz whose every file went through the redactor, and a manifest of what is not there."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetctl.support.redact import MARK, Redactor

SCHEMA = "fleetctl/support-bundle/v1"


@dataclass
class Pack:
    """Texts by their names in the bundle, and what could not be had, with the reason. Safe where one thread adds."""

    redactor: Redactor
    files: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, text: str) -> None:
        self.files[name] = self.redactor.text(text)

    def add_json(self, name: str, value: Any) -> None:
        self.add(name, json.dumps(value, indent=1, default=str) + "\n")

    def lack(self, name: str, why: str) -> None:
        self.missing[name] = self.redactor.text(why.strip() or "no reason was given")

    def manifest(self, fleet: str, at: float, seconds: float) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "fleet": fleet,
            "at": at,
            "seconds": round(seconds, 1),
            "files": [
                {"name": name, "bytes": len(text.encode("utf-8", "replace")), "redacted": text.count(MARK)}
                for name, text in sorted(self.files.items())
            ],
            "missing": [{"name": name, "why": why} for name, why in sorted(self.missing.items())],
        }

    def write(self, path: Path, fleet: str, at: float, began: float) -> dict[str, Any]:
        """Write it to `path`, which must not be there yet; readable by its owner only. The manifest. Raises OSError."""
        manifest = self.manifest(fleet, at, time.monotonic() - began)
        top = path.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz") or "bundle"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as out, tarfile.open(fileobj=out, mode="w:gz") as tar:
                _put(tar, f"{top}/manifest.json", json.dumps(manifest, indent=1) + "\n", at)
                for name, text in sorted(self.files.items()):
                    _put(tar, f"{top}/{name}", text, at)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return manifest


def _put(tar: tarfile.TarFile, name: str, text: str, at: float) -> None:
    data = text.encode("utf-8", "replace")
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(data), int(at), 0o600
    tar.addfile(entry, io.BytesIO(data))
