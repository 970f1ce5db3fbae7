"""Makes .venv hold what pyproject.toml and .ci/constraints.txt say, and nothing is done when it already does.

    python3 make/environment.py EXTRA...        e.g. agent balancer examples

Standard library only: it runs before anything is installed. Every file pip takes is checked against the
sha256 in .ci/constraints.txt (HASHES=0 switches that off, for an index that rebuilds packages).
TORCH_INDEX=URL takes torch from that index instead, PyTorch's own index of CPU builds for one: torch's own
hash is then not checked, since each index builds its own file.

Needs no ensurepip (Debian keeps it in python3-venv): root installs that, anyone else gets Debian's pip unpacked.
Exits 0, or 1 with what failed and what to do next.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
INTERPRETER = VENV / "bin" / "python"
STAMP = VENV / "made.json"
PROJECT = ROOT / "pyproject.toml"
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"
BUILD = ("hatchling", "editables")  # what the editable install needs, pinned like the rest


class Problem(Exception):
    """Something the person at the keyboard has to act on; the text says what to do next."""


def say(message: str) -> None:
    print(f"make: {message}", file=sys.stderr, flush=True)


def key() -> str:
    """Changes when anything does that decides what is installed."""
    digest = hashlib.sha256()
    for part in (PROJECT.read_bytes(), CONSTRAINTS.read_bytes(), sys.version.encode(), str(ROOT).encode()):
        digest.update(part + b"\0")
    digest.update(os.environ.get("TORCH_INDEX", "").encode())
    return digest.hexdigest()


def stamped() -> tuple[str | None, set[str]]:
    """What the environment was last completely made from: (key, extras)."""
    try:
        made = json.loads(STAMP.read_text())
        return made["key"], set(made["extras"])
    except (OSError, ValueError, KeyError):
        return None, set()


def runs(*argv: str | Path, folder: Path | None = None) -> bool:
    try:
        done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        return done.returncode == 0
    except OSError:
        return False


def requirements(extras: set[str]) -> list[str]:
    project = tomllib.loads(PROJECT.read_text())["project"]
    known = project["optional-dependencies"]
    for extra in sorted(extras - set(known)):
        raise Problem(f"pyproject.toml has no extra {extra!r}; it has {', '.join(sorted(known))}.")
    return [*project["dependencies"], *(line for extra in sorted(extras) for line in known[extra]), *BUILD]


def locked(name: str) -> tuple[str, set[str]]:
    """The version and the sha256 sums the constraints hold for one package."""
    text = CONSTRAINTS.read_text().replace("\\\n", " ")
    for line in text.splitlines():
        found = re.match(rf"{re.escape(name)}==(\S+)", line)
        if found:
            return found[1], set(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    raise Problem(f"{CONSTRAINTS} does not pin {name}; write it anew: make lock")


def unpacked_pip(scratch: Path) -> Path | None:
    """Debian's own pip wheel, unpacked without being root; it also runs as `python WHEEL/pip`. None without apt-get."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return None
    apt = [str(ROOT / "make" / "apt.sh"), str(scratch / "apt")]
    got = runs(*apt, "update") and runs(*apt, "download", "python3-pip-whl", folder=scratch)
    for package in scratch.glob("*.deb") if got else ():
        runs("dpkg-deb", "-x", package, scratch / "unpacked")
    return next(iter((scratch / "unpacked").rglob("pip-*.whl")), None)


def bring_pip(scratch: Path) -> None:
    """Puts some pip into the new environment, from the nearest place that has one. Raises Problem."""
    if runs(INTERPRETER, "-m", "pip", "--version"):
        return
    if importlib.util.find_spec("ensurepip") and runs(INTERPRETER, "-m", "ensurepip", "--default-pip"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say("installing python3-venv, which brings pip: Debian's python3 comes without")
        if (
            runs("apt-get", "update", "-qq")
            and runs("apt-get", "install", "-y", "-qq", "python3-venv")
            and runs(INTERPRETER, "-m", "ensurepip", "--default-pip")
        ):
            return
    wheel = unpacked_pip(scratch)
    if wheel is not None:
        folder = wheel.parent
        if runs(INTERPRETER, f"{wheel}/pip", "install", "--no-index", "--find-links", folder, "pip"):
            return
    raise Problem(
        "Python here has no pip, and Debian's could not be had either.\n"
        "      As root: apt-get install python3-venv; then the same make command."
    )


def make_venv() -> None:
    say(f"making .venv with {sys.executable} ({sys.version.split()[0]})")
    # Emptied first: packages left by another interpreter, or by an install that was cut off, are not kept.
    venv.EnvBuilder(clear=True, symlinks=True, with_pip=False).create(VENV)


def pip(*argv: str | Path, what: str) -> None:
    env = dict(
        os.environ,
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        PIP_ROOT_USER_ACTION="ignore",
        PIP_NO_INPUT="1",
        PIP_USER="0",
    )
    quiet = [] if os.environ.get("VERBOSE") else ["--quiet"]
    command = [INTERPRETER, "-m", "pip", *argv[:1], *quiet, *argv[1:]]
    if subprocess.run(command, env=env, stdin=subprocess.DEVNULL).returncode != 0:
        raise Problem(
            f"{what} failed; pip's own words are above.\n"
            "      Behind a mirror, pip needs its address (PIP_INDEX_URL); on a full disk, it needs about 2 GB\n"
            "      (6 GB with CUDA). Then the same make command goes on."
        )


def has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None


def hint_small_torch() -> None:
    """Says once how to avoid gigabytes of CUDA where no GPU is; says nothing where pip has a place of its own."""
    told = any(os.environ.get(name) for name in ("TORCH_INDEX", "PIP_FIND_LINKS", "PIP_INDEX_URL"))
    if sys.platform == "linux" and not told and not has_gpu():
        say(
            "no NVIDIA GPU here, and the index's torch brings about 3 GB of CUDA. The CPU build is a tenth of that:\n"
            "      stop now and run with TORCH_INDEX=URL, the index of CPU builds that PyTorch's own page names"
        )


def bring_torch(check: bool) -> None:
    """Puts the pinned torch in before pip resolves anything else.

    A CPU build of the pinned version (2.13.0+cpu) that pip has at hand, in a find-links folder or in TORCH_INDEX, is
    what it picks by itself, and it spares gigabytes of CUDA. Under --require-hashes it would prefer the index's
    file, whose sum the index tells; so the file is chosen without and its sum compared here.
    """
    version, sums = locked("torch")
    probe = (
        f"import importlib.metadata as m; raise SystemExit(m.version('torch').split('+')[0] != {version!r})"
    )
    if runs(INTERPRETER, "-c", probe):
        return
    index = os.environ.get("TORCH_INDEX")
    hint_small_torch()
    # Within .venv: half a gigabyte may not fit into /tmp.
    with tempfile.TemporaryDirectory(prefix="torch-", dir=VENV) as folder:
        place = ["--index-url", index] if index else []
        pip("download", "--no-deps", "--dest", folder, *place, f"torch=={version}", what="downloading torch")
        (file,) = Path(folder).iterdir()
        with file.open("rb") as data:
            total = hashlib.file_digest(data, "sha256").hexdigest()
        if check and not index and total not in sums:
            raise Problem(
                f"{file.name} has the sha256 {total}, which {CONSTRAINTS.name} does not name: not installed."
            )
        pip("install", "--no-deps", file, what="installing torch")


def install(extras: set[str]) -> None:
    hashes = os.environ.get("HASHES", "1") != "0"
    wanted = requirements(extras)
    with tempfile.TemporaryDirectory(prefix="fleetctl-make-") as name:
        scratch = Path(name)
        bring_pip(scratch)
        constraints = scratch / "constraints.txt"
        text = CONSTRAINTS.read_text()
        if not hashes:
            text = re.sub(r"\s*\\\n\s+--hash=\S+", "", text)
        constraints.write_text(text)
        check = ["--require-hashes"] if hashes else []
        locks: list[str | Path] = [*check, "--constraint", constraints]
        # Older pips take hashes from requirements only, newer ones (the pinned one) from constraints as well.
        version, sums = locked("pip")
        own = scratch / "pip.txt"
        own.write_text(
            " ".join([f"pip=={version}", *(f"--hash=sha256:{total}" for total in sums if hashes)]) + "\n"
        )
        pip("install", *check, "--requirement", own, what="bringing pip to its pinned version")
        if "agent" in extras:
            bring_torch(check=hashes)
        asked = scratch / "requirements.txt"
        asked.write_text("\n".join(wanted) + "\n")
        said = ", ".join(sorted(extras)) or "the operator's part"
        say(f"installing fleetctl with {said}" + ("" if hashes else " (hashes not checked)"))
        pip("install", *locks, "--requirement", asked, what="installing the dependencies")
        pip("install", "--no-deps", "--no-build-isolation", "--editable", ROOT, what="installing fleetctl")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One make at a time per clone: a second one waits, then finds the work done."""
    with (ROOT / ".venv.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another make is working on .venv; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(argv: list[str]) -> int:
    try:
        with alone():
            want = set(argv)
            now = key()
            made, have = stamped()
            sound = made is not None and runs(INTERPRETER, "-c", "import fleetctl")
            if sound and made == now and want <= have:
                return 0
            # An environment of the same interpreter and place is brought up to date; any other is made anew.
            STAMP.unlink(missing_ok=True)
            if not sound or not same_interpreter():
                have = set()
                make_venv()
            install(want | have)
            STAMP.write_text(json.dumps({"key": now, "extras": sorted(want | have), "python": sys.version}))
    except Problem as problem:
        say(str(problem))
        return 1
    except PermissionError as error:
        say(f"{error.filename}: no permission. Was this clone made, or `make` run, by another user?")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        return 130
    return 0


def same_interpreter() -> bool:
    answer = subprocess.run(
        [INTERPRETER, "-c", "import sys; print(sys.version)"], capture_output=True, text=True
    )
    return answer.returncode == 0 and answer.stdout.strip() == sys.version.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
