"""Programs that are asked something: found where a login's PATH may not look, bounded in time and in what they say."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

# Where programs of root lie, which a login's PATH may leave out.
MORE = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SAID = 32 * 1024


def found(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":" + MORE)


def call(argv: list[str], seconds: float, most: int = SAID) -> dict[str, Any]:
    """{"missing": True}, or {"status", "out", "err"}: the last `most` bytes. Raises subprocess.TimeoutExpired."""
    program = found(argv[0])
    if program is None:
        return {"missing": True}
    done = subprocess.run(
        [program, *argv[1:]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds,
        env=dict(os.environ, LC_ALL="C"),
    )
    return {"status": done.returncode, "out": text(done.stdout, most), "err": text(done.stderr, most)}


def text(data: bytes, most: int = SAID) -> str:
    return data[-most:].decode("utf-8", "replace")
