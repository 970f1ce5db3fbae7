"""Errand: the archive becomes a release, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from typing import Any

from fleet_controller.hosts.keeper.files import Lock, folder, remove, sha256, sync_folder, write
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.release import intact
from fleet_controller.hosts.keeper.speech import Trouble
from fleet_controller.hosts.keeper.weights import sent_file


def errand(args: dict[str, Any]) -> dict[str, Any]:
    place = Place(args)
    key = args["key"]
    final = place.path("releases", key)
    archive = args["upload"]
    temporary = place.path("releases", f".{key}.{os.getpid()}")
    with Lock(place.path("releases", ".lock"), 60):
        try:
            if intact(place, key):
                return {}
            if sha256(archive) != args["sha256"]:
                raise Trouble(
                    "release",
                    "the release arrived damaged (its sha256 differs)",
                    "Run the same again; it is sent anew",
                )
            folder(temporary)
            files = {}
            times = {}
            links = {}
            with tarfile.open(archive) as tar:
                for member in tar:
                    # The archive's hash is known, so this only guards against a mistake of ours.
                    if not member.isreg() or member.name.startswith("/") or ".." in member.name.split("/"):
                        raise Trouble(
                            "release", f"the release contains {member.name!r}", "Report this as a bug"
                        )
                    path = os.path.join(temporary, member.name)
                    folder(os.path.dirname(path))
                    source = tar.extractfile(member)
                    assert source is not None
                    digest = hashlib.sha256()
                    with open(path, "wb") as out:
                        for chunk in iter(lambda: source.read(1 << 20), b""):  # noqa: B023
                            out.write(chunk)
                            digest.update(chunk)
                        out.flush()
                        os.fsync(out.fileno())
                    os.chmod(path, member.mode & 0o700)
                    files[member.name] = (member.size, digest.hexdigest())
                    times[member.name] = os.stat(path).st_mtime_ns
            for one in args["weights"]:
                target = one["mount"] or sent_file(place.shared, one["sha256"])
                path = os.path.join(temporary, one["path"])
                folder(os.path.dirname(path))
                os.symlink(target, path)
                links[one["path"]] = {"sha256": one["sha256"], "target": target}
            about = {"key": key, "files": files, "times": times, "links": links}
            write(os.path.join(temporary, "release.json"), json.dumps(about))
            sync_folder(temporary)
            remove(final)
            os.rename(temporary, final)
            sync_folder(place.path("releases"))
        finally:
            remove(temporary)
            remove(archive)
    return {}
