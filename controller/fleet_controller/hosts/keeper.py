# ruff: noqa: PTH100, PTH101, PTH103, PTH104, PTH105, PTH108, PTH110, PTH111, PTH112, PTH114
# ruff: noqa: PTH115, PTH116, PTH118, PTH120, PTH123, PTH202, PTH208
# os.path all through: this text is sent to hosts, and importing pathlib costs each of its starts 10 ms.
"""What is done on the host itself: look, unpack, start, stop, tail. Sent as text to `python3 -I -S -`.

Runs alone: standard library only, Python 3.8 or newer, Linux. The caller appends one line, `main('JSON')`.
Answers are lines that begin with the caller's nonce, so that whatever else a login writes does no harm.
A process is only ever signalled after its start time and its environment marker were seen to be ours.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
from typing import Any

MARKER = "FLEETCTL_AGENT"
ROOT_MARKER = "FLEETCTL_ROOT"
LOG_LIMIT = 10 * 1024 * 1024
TAIL_LIMIT = 1024 * 1024
HASH_AGAIN_BELOW = 4 * 1024 * 1024
NONCE = ""


class Trouble(Exception):
    def __init__(self, kind: str, cause: str, next_step: str) -> None:
        super().__init__(cause)
        self.kind = kind
        self.cause = cause
        self.next_step = next_step


def say(word: str, value: object) -> None:
    sys.stdout.write(f"\n{NONCE} {word} {json.dumps(value)}\n")
    sys.stdout.flush()


# -- files -------------------------------------------------------------------------------------------------


def read(path: str, limit: int = 1 << 20) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


def read_json(path: str) -> dict[str, Any] | None:
    try:
        value = json.loads(read(path))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def write(path: str, text: str, mode: int = 0o600) -> None:
    """Whole or not at all, and on the disk."""
    part = f"{path}.{os.getpid()}.part"
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        remove(part)
        raise


def remove(path: str) -> None:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass


def folder(*parts: str) -> str:
    """A folder of ours, private to this user; made when it is missing."""
    path = os.path.join(*parts)
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise Trouble(
            "permission", f"{path} is not a folder", "Move it away, or set install.directory"
        ) from None
    info = os.stat(path)
    if info.st_uid == os.geteuid() and stat.S_IMODE(info.st_mode) & 0o077:
        os.chmod(path, 0o700)
    return path


def sync_folder(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def free_bytes(path: str) -> int:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free


class Lock:
    """One keeper at a time changes a place. Raises Trouble when another holds it for longer than `wait_s`."""

    def __init__(self, path: str, wait_s: float) -> None:
        self.handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() >= until:
                    os.close(self.handle)
                    raise Trouble(
                        "busy",
                        f"another fleetctl is at work on this host and did not finish within {wait_s:.0f} s",
                        "Let it finish, then run the same again",
                    ) from None
                time.sleep(0.05)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.handle)


# -- processes ---------------------------------------------------------------------------------------------


class Process:
    """One process at one time: `ticks` (start time, field 22 of stat) tells it from a later one of the same pid."""

    def __init__(self, pid: int, state: str, session: int, ticks: int) -> None:
        self.pid = pid
        self.state = state
        self.session = session
        self.ticks = ticks
        self.action: str | None = None

    def command(self) -> str:
        text = read(f"/proc/{self.pid}/cmdline", 4096).replace("\0", " ").strip()
        return text or "[" + read(f"/proc/{self.pid}/comm").strip() + "]"

    def name(self) -> str:
        hangs = ", uninterruptible" if self.state == "D" else ""
        return f"pid {self.pid} ({self.command()[:200]}{hangs})"

    def alive(self) -> bool:
        now = process(self.pid)
        return now is not None and now.ticks == self.ticks

    def send(self, number: int) -> None:
        """Signal exactly this process: never one that took over its pid."""
        try:
            if hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal"):
                handle = os.pidfd_open(self.pid)
                try:
                    if self.alive():
                        signal.pidfd_send_signal(handle, number)
                finally:
                    os.close(handle)
                return
        except ProcessLookupError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass


def process(pid: int) -> Process | None:
    """None where there is none, or only its unreaped remains."""
    text = read(f"/proc/{pid}/stat")
    if not text:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    return Process(pid, fields[0], int(fields[3]), int(fields[19]))


def all_processes() -> list[Process]:
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [p for p in found if p is not None]


def marks(pid: int) -> dict[str, str]:
    wanted = (MARKER + "=", ROOT_MARKER + "=")
    pairs = (
        item.split("=", 1) for item in read(f"/proc/{pid}/environ").split("\0") if item.startswith(wanted)
    )
    return dict(pairs)


class Place:
    """This host's part of a fleet: where its files are and which processes are its own."""

    def __init__(self, args: dict[str, Any]) -> None:
        self.root = os.path.abspath(os.path.join(os.path.expanduser(args["directory"]), *args["below"]))
        self.owner = "{}/{}/".format(args["fleet"], args["host"])
        self.run = os.path.join(self.root, "run")
        self.config = os.path.join(self.run, "config.json")
        self.run_file = os.path.join(self.run, "agent.json")
        self.log = os.path.join(self.run, "agent.log")

    def path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def processes(self) -> list[Process]:
        """Every living process that an agent start of ours made: by marker, and by the sessions of those."""
        everyone = all_processes()
        sessions: dict[int, str] = {}
        own = []
        for one in everyone:
            seen = marks(one.pid)
            if seen.get(ROOT_MARKER) == self.root and seen.get(MARKER, "").startswith(self.owner):
                one.action = seen[MARKER][len(self.owner) :]
                own.append(one)
                sessions.setdefault(one.session, one.action)
        for one in everyone:
            # A session is made by our setsid and nobody else can enter it: its members are ours, marked or not.
            if one.action is None and one.session in sessions:
                one.action = sessions[one.session]
                own.append(one)
        return own

    def recorded(self) -> tuple[dict[str, Any], Process | None]:
        """The run file, and its process where that very process still lives."""
        run = read_json(self.run_file) or {}
        pid = run.get("pid")
        if not isinstance(pid, int) or run.get("boot_id") != boot_id():
            return run, None
        one = process(pid)
        if one is None or one.ticks != run.get("start_ticks"):
            return run, None
        one.action = str(run.get("action_id"))
        return run, one

    def agent(self, own: list[Process] | None = None) -> Process | None:
        """The agent's main process: the one of the run file, or one that has not written it yet."""
        one = self.recorded()[1]
        if one is not None:
            return one
        for other in self.processes() if own is None else own:
            words = read(f"/proc/{other.pid}/cmdline").split("\0")
            if other.pid == other.session and "fleet_agent" in words and self.config in words:
                return other
        return None


def boot_id() -> str:
    return read("/proc/sys/kernel/random/boot_id").strip()


def listeners(port: int) -> dict[str, str]:
    """inode -> address of every TCP socket that listens on `port`."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read(table, 1 << 24).splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and int(words[1].rsplit(":", 1)[1], 16) == port:
                found[words[9]] = words[1]
    return found


def holder(inodes: dict[str, str]) -> str:
    """Who holds one of these sockets, by name; other users' processes can't be looked into."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for one in all_processes():
        try:
            for handle in os.listdir(f"/proc/{one.pid}/fd"):
                if os.readlink(f"/proc/{one.pid}/fd/{handle}") in wanted:
                    return one.name()
        except OSError:
            continue
    return "a process of another user"


# -- errands -----------------------------------------------------------------------------------------------


def probe(args: dict[str, Any]) -> dict[str, Any]:
    place = Place(args)
    agent = None
    run, one = place.recorded()
    if one is not None:
        agent = dict(run, alive=True)
    else:
        if os.path.isdir(place.run):
            one = place.agent()
        if one is not None:
            agent = {"pid": one.pid, "alive": True, "port": 0, "action_id": one.action, "release": ""}
            agent["release"] = str((read_json(place.config) or {}).get("release", ""))
        elif run:
            agent = dict(run, alive=False)
    machine = read("/etc/machine-id").strip() or read("/var/lib/dbus/machine-id").strip()
    return {"boot_id": boot_id(), "machine_id": machine, "agent": agent, "root": place.root}


def intact(place: Place, key: str) -> bool:
    """Is this release here whole? Sizes of all files, and the hashes of those up to 4 MiB, are looked at again."""
    base = place.path("releases", key)
    marker = read_json(os.path.join(base, "release.json"))
    if marker is None or marker.get("key") != key:
        return False
    for name, (size, digest) in marker["files"].items():
        path = os.path.join(base, name)
        try:
            if os.stat(path).st_size != size or (size <= HASH_AGAIN_BELOW and sha256(path) != digest):
                return False
        except OSError:
            return False
    return True


def version_of(python: str) -> str:
    """ "3.11" of an interpreter. Raises Trouble when it cannot be run or is too old for the agent."""
    code = "import sys; print('fleet %d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [python, "-I", "-S", "-c", code],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
        )
    except FileNotFoundError:
        raise no_python(python, "is not there") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise no_python(python, f"cannot be run: {error}") from None
    words = done.stdout.decode("utf-8", "replace").split()
    if done.returncode or "fleet" not in words:
        raise no_python(python, "does not work: {}".format(done.stderr.decode("utf-8", "replace")[-300:]))
    version = words[words.index("fleet") + 1]
    if tuple(int(part) for part in version.split(".")) < (3, 11):
        raise no_python(python, f"is Python {version}, the agent needs 3.11 or newer")
    return version


def no_python(python: str, what: str) -> Trouble:
    step = "Install it (Debian, Ubuntu: `apt-get install -y python3 python3-venv`; Fedora: `dnf install -y python3`)"
    return Trouble(
        "python",
        f"{python} {what}",
        step + ", or name another in install.python or install.interpreter",
    )


def python_of(place: Place, args: dict[str, Any]) -> tuple[str, str]:
    """(interpreter of the agent, its environment's folder or "" where one was given)."""
    if args["interpreter"]:
        return os.path.expanduser(args["interpreter"]), ""
    base = place.path("environments", "{}-py{}".format(args["environment"], version_of(args["python"])))
    return os.path.join(base, "bin", "python"), base


def prepare(args: dict[str, Any]) -> dict[str, Any]:
    """What of the release is here; where to put the archive if it is not."""
    place = Place(args)
    python, base = python_of(place, args)
    if not base:
        version_of(python)
    ready = not base or (read_json(os.path.join(base, "environment.json")) or {}).get("complete") is True
    if intact(place, args["key"]):
        return {"present": True, "ready": ready}
    releases = folder(folder(place.root), "releases")
    free = free_bytes(releases)
    need = 2 * args["size"] + (1 << 20)
    if free < need:
        raise no_room(releases, f"the release needs {need / 1e6:.1f} MB, {free / 1e6:.1f} MB are free")
    for name in os.listdir(releases):
        old = os.path.join(releases, name)
        if name.startswith(".") and time.time() - os.lstat(old).st_mtime > 3600:
            remove(old)  # what an interrupted transfer left
    return {"present": False, "ready": ready, "upload": os.path.join(releases, ".{}.tar".format(args["key"]))}


def no_room(path: str, why: str) -> Trouble:
    step = f"Free space there (see `df -h {path}`), or set install.directory to a bigger disk, then run the same again"
    return Trouble("disk", f"no room in {path}: {why}; nothing was left half-written", step)


def unpack(args: dict[str, Any]) -> dict[str, Any]:
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
            write(os.path.join(temporary, "release.json"), json.dumps({"key": key, "files": files}))
            sync_folder(temporary)
            remove(final)
            os.rename(temporary, final)
            sync_folder(place.path("releases"))
        finally:
            remove(temporary)
            remove(archive)
    return {}


def environment(args: dict[str, Any]) -> dict[str, Any]:
    """The virtual environment that the agent and the models need: built beside, moved in place when complete."""
    place = Place(args)
    base = python_of(place, args)[1]
    marker = "environment.json"
    if not base:
        return {}
    folder(place.path("environments"))
    with Lock(place.path("environments", ".lock"), 1800):
        if (read_json(os.path.join(base, marker)) or {}).get("complete") is True:
            return {}
        temporary = base + ".part"
        remove(temporary)
        remove(base)
        try:
            code = "import ensurepip, venv"
            if subprocess.run(
                [args["python"], "-I", "-c", code],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
            ).returncode:
                raise Trouble(
                    "environment",
                    "{} cannot make virtual environments (its ensurepip or venv module is missing)".format(
                        args["python"]
                    ),
                    "Debian, Ubuntu: `apt-get install -y python3-venv`; or give an interpreter that has all in"
                    " install.interpreter",
                )
            patient([args["python"], "-m", "venv", temporary], "making the virtual environment")
            listing = os.path.join(temporary, "requirements.txt")
            write(listing, "".join(line + "\n" for line in args["requirements"]))
            pip = [
                os.path.join(temporary, "bin", "python"),
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
            ]
            pip += ["--no-input", "--progress-bar", "off"] + args["pip_args"] + ["-r", listing]
            for name in args["requirement_files"]:
                pip += ["-r", place.path("releases", args["key"], name)]
            patient(pip, "installing what the models need")
            scripts = os.path.join(temporary, "bin")
            for name in os.listdir(
                scripts
            ):  # they name the interpreter by its path, which is about to change
                path = os.path.join(scripts, name)
                if not os.path.islink(path) and os.path.getsize(path) < 1 << 16:
                    with open(path, "rb") as file:
                        text = file.read()
                    if text.startswith(b"#!" + os.fsencode(temporary)):
                        with open(path, "r+b") as file:
                            file.write(text.replace(os.fsencode(temporary), os.fsencode(base), 1))
                            file.truncate()
            write(os.path.join(temporary, marker), json.dumps({"complete": True}))
            os.rename(temporary, base)
        except BaseException:
            remove(temporary)
            raise
    return {}


def patient(argv: list[str], what: str) -> None:
    """Run a long command and report on it; when nobody listens any more (the SSH connection broke), end it."""
    say("progress", what)
    last: list[str] = []
    work = subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert work.stdout is not None
    os.set_blocking(work.stdout.fileno(), False)
    rest = b""
    spoken = time.monotonic()
    try:
        while True:
            try:
                data = work.stdout.read()
            except OSError:
                data = None
            if data == b"" or (data is None and work.poll() is not None):
                break
            if data is None:
                time.sleep(0.1)
            else:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    text = line.decode("utf-8", "replace").strip()
                    last = ([*last, text])[-20:]
                    if text.startswith(("Collecting ", "Downloading ", "Installing ", "Building ")):
                        spoken = time.monotonic()
                        say("progress", text[:200])
            if time.monotonic() - spoken > 5:
                spoken = time.monotonic()
                say("progress", what)
        work.wait()
    except BaseException:
        os.killpg(work.pid, signal.SIGKILL)
        work.wait()
        raise
    if work.returncode:
        text = " / ".join([*last[-6:], rest.decode("utf-8", "replace")])
        if "No space left" in text or "Disk quota" in text:
            raise no_room(argv[0], text[-400:])
        raise Trouble(
            "environment",
            f"{what} failed: {text[-800:]}",
            "Check that the host reaches the package index (install.pip_args can name another), and the requirements",
        )


def start(args: dict[str, Any]) -> dict[str, Any]:
    """Start the agent of this action, once, and wait until it listens."""
    place = Place(args)
    if not os.path.isdir(place.root):
        raise not_installed(args["key"])
    folder(place.run)
    with Lock(os.path.join(place.run, "lock"), args["wait_s"]):
        own = place.processes()
        agent = place.agent(own)
        if agent is not None and agent.action != args["action_id"]:
            raise Trouble(
                "conflict",
                f"an agent of another start ({agent.action}) already runs: {agent.name()}",
                "Stop that one first; two agents on one host would share its device",
            )
        if agent is not None:
            return await_listening(place, args, None)
        end(own)  # an agent that died may have left children that hold the device
        if not intact(place, args["key"]):
            raise not_installed(args["key"])
        python, base = python_of(place, args)
        if base and not os.path.exists(os.path.join(base, "environment.json")):
            raise not_installed(args["key"])
        taken = listeners(args["port"]) if args["port"] else {}
        if taken:
            raise Trouble(
                "port",
                f"port {args['port']} is already taken by {holder(taken)}",
                "Stop that process, or give the host another agent.port",
            )
        return await_listening(place, args, launch(place, args, python))


def not_installed(key: str) -> Trouble:
    return Trouble(
        "release", f"release {key} is not installed here, or not whole", "Install it, then start again"
    )


def launch(place: Place, args: dict[str, Any], python: str) -> subprocess.Popen[bytes]:
    release = place.path("releases", args["key"])
    config = args["config"]
    token = os.path.join(place.run, "token")
    for model in config["models"]:
        model["path"] = os.path.join(release, model["path"])
    config["token_file"] = token
    config["run_file"] = place.run_file
    remove(place.run_file)
    write(token, args["token"])
    write(place.config, json.dumps(config, indent=1))
    try:
        if os.path.getsize(place.log) > LOG_LIMIT:
            os.replace(place.log, place.log + ".1")
    except FileNotFoundError:
        pass
    env = dict(os.environ, PYTHONPATH=os.path.join(release, "lib"), PYTHONUNBUFFERED="1")
    env[MARKER] = place.owner + args["action_id"]
    env[ROOT_MARKER] = place.root
    log = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        argv = [python, "-m", "fleet_agent", "--config", place.config]
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=place.run,
            env=env,
            start_new_session=True,
            close_fds=True,
        )
    except OSError as error:
        raise Trouble("start", f"{python} cannot be run: {error}", "Check install.interpreter") from None
    finally:
        os.close(log)


def await_listening(
    place: Place, args: dict[str, Any], child: subprocess.Popen[bytes] | None
) -> dict[str, Any]:
    """The run file of this action's living agent. `child` is given where this keeper started it."""
    until = time.monotonic() + args["wait_s"]
    pause = 0.01
    while True:
        run, one = place.recorded()
        if one is not None and run.get("action_id") == args["action_id"]:
            return run
        ended = child.poll() is not None if child is not None else place.agent() is None
        if ended:
            how = "" if child is None else f" with exit status {child.returncode}"
            raise Trouble(
                "start",
                f"the agent ended{how} before it listened; its last words: {last_words(place)}",
                "Mend what it says, then start again; `fleetctl logs` shows more",
            )
        if time.monotonic() >= until:
            raise Trouble(
                "start",
                "the agent does not listen after {:.0f} s; its last words: {}".format(
                    args["wait_s"], last_words(place)
                ),
                "It is left running: wait for it, or stop it; `fleetctl logs` shows more",
            )
        time.sleep(pause)
        pause = min(pause * 1.3, 0.2)


def last_words(place: Place) -> str:
    return " / ".join(text_tail(place.log, 8).splitlines())[-1200:] or "none"


def stop(args: dict[str, Any]) -> dict[str, Any]:
    """End the agent and everything it started, and prove it. A second call goes on waiting, it does not hurry."""
    place = Place(args)
    if not os.path.isdir(place.run):
        return {"was_running": False, "killed": [], "port": 0}
    asked = os.path.join(place.run, "stopping.json")
    grace = args["grace_s"]
    with Lock(os.path.join(place.run, "lock"), grace + 15):
        own = place.processes()
        agent = place.agent(own)
        run = read_json(place.run_file) or {}
        if agent is not None:
            if all(one.pid != agent.pid for one in own):
                own.append(agent)
            mine = {"pid": agent.pid, "ticks": agent.ticks, "boot_id": boot_id()}
            before = read_json(asked) or {}
            since = time.monotonic()
            if all(before.get(name) == value for name, value in mine.items()):
                since = before["at"]  # a second SIGTERM would cut off what the agent still answers
            else:
                write(asked, json.dumps(dict(mine, at=since)))
                agent.send(signal.SIGTERM)
            pause = 0.01
            while agent.alive() and time.monotonic() < since + grace:
                time.sleep(pause)
                pause = min(pause * 1.3, 0.2)
        until = time.monotonic() + 1.0
        left = [one for one in gathered(place, own) if one.alive()]
        while left and (agent is None or not agent.alive()) and time.monotonic() < until:
            time.sleep(0.02)  # what the agent started ends with it, just after it
            left = [one for one in gathered(place, own) if one.alive()]
        killed = end(own, place)
        port = run.get("port")
        if isinstance(port, int) and run.get("boot_id") == boot_id():
            prove_closed(port)
        for path in (place.run_file, asked, os.path.join(place.run, "token")):
            remove(path)
    return {"was_running": agent is not None or bool(own), "killed": killed, "port": port or 0}


def gathered(place: Place, own: list[Process]) -> list[Process]:
    """`own` plus what has appeared since, in place."""
    known = {(one.pid, one.ticks) for one in own}
    own += [one for one in place.processes() if (one.pid, one.ticks) not in known]
    return own


def end(own: list[Process], place: Place | None = None) -> list[str]:
    """Kill these (and what appears meanwhile), and prove it. Returns the names of those that had to be killed."""
    killed: dict[tuple[int, int], str] = {}
    until = time.monotonic() + 10
    while True:
        left = [one for one in (gathered(place, own) if place is not None else own) if one.alive()]
        if not left:
            return list(killed.values())
        if time.monotonic() >= until:
            raise Trouble(
                "stop",
                "still there after SIGKILL: {}".format("; ".join(one.name() for one in left[:5])),
                "Such a process hangs in the kernel (often a GPU driver); reboot or power-cycle the host",
            )
        for one in left:
            killed.setdefault((one.pid, one.ticks), one.name())
            one.send(signal.SIGKILL)
        time.sleep(0.02)


def prove_closed(port: int) -> None:
    until = time.monotonic() + 2
    while True:
        held = listeners(port)
        if not held:
            return
        if time.monotonic() >= until:
            raise Trouble(
                "port",
                f"the agent is gone, but port {port} is still open, held by {holder(held)}",
                "Stop that process; it may be a child of the agent that hid itself",
            )
        time.sleep(0.05)


def text_tail(path: str, lines: int) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_LIMIT))
            text = file.read(TAIL_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:]) if lines > 0 else ""


def tail(args: dict[str, Any]) -> dict[str, Any]:
    place = Place(args)
    text = text_tail(place.log, args["lines"])
    missing = args["lines"] - len(text.splitlines())
    if missing > 0:
        text = "\n".join(part for part in (text_tail(place.log + ".1", missing), text) if part)
    while len(json.dumps(text)) > TAIL_LIMIT:
        text = text[len(text) // 4 + 1 :]
    return {"text": text}


ERRANDS = {
    "probe": probe,
    "prepare": prepare,
    "unpack": unpack,
    "environment": environment,
    "start": start,
    "stop": stop,
    "tail": tail,
}


def main(text: str) -> None:
    global NONCE
    args = json.loads(text)
    NONCE = args["nonce"]
    os.umask(0o077)
    try:
        say("answer", ERRANDS[args["errand"]](args))
    except Trouble as trouble:
        say("trouble", [trouble.kind, trouble.cause, trouble.next_step])
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more
    except OSError as error:
        where = error.filename or "a file"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            full = no_room(os.path.dirname(str(where)) or "its folder", str(error.strerror))
            say("trouble", [full.kind, full.cause, full.next_step])
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            step = "Give this user the right to it, or set install.directory to a folder of its own"
            say("trouble", ["permission", f"{where}: {error.strerror}", step])
        else:
            raise
