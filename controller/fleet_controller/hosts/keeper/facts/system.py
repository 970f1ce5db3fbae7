"""Facts: what this machine is, who we are on it, and what a process of ours may use."""

from __future__ import annotations

import os
import pwd
import re
import resource
from typing import Any

from fleet_controller.hosts.keeper.elevation import elevation_of
from fleet_controller.hosts.keeper.files import read
from fleet_controller.hosts.keeper.processes import boot_id
from fleet_controller.hosts.keeper.speech import Trouble


def system() -> dict[str, Any]:
    release = {}
    for line in (read("/etc/os-release") or read("/usr/lib/os-release")).splitlines():
        key, _, value = line.partition("=")
        release[key] = value.strip().strip("\"'")
    kernel = os.uname()
    return {
        "os": release.get("PRETTY_NAME") or release.get("NAME", ""),
        "id": release.get("ID", ""),
        "kernel": kernel.release,
        "system": kernel.sysname,
        "arch": kernel.machine,
        "cpus": len(os.sched_getaffinity(0)),
        "uptime_s": float((read("/proc/uptime") or "0").split()[0]),
        "container": os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"),
    }


def identity() -> dict[str, Any]:
    """What tells this machine from another one. The host keys as they lie in /etc/ssh, which everybody may read."""
    keys = []
    for kind in ("ed25519", "ecdsa", "rsa"):
        words = read(f"/etc/ssh/ssh_host_{kind}_key.pub").split()
        if len(words) > 1:
            keys.append(words[1])
    return {
        "machine_id": read("/etc/machine-id").strip() or read("/var/lib/dbus/machine-id").strip(),
        "boot_id": boot_id(),
        "host_keys": keys,
    }


def rights(args: dict[str, Any]) -> dict[str, Any]:
    """How this user becomes root, or why it does not."""
    try:
        return {"way": elevation_of(args).way()}
    except Trouble as trouble:
        return {"way": "", "cause": trouble.cause, "next": trouble.next_step}


def memory() -> dict[str, Any]:
    table = {}
    for line in read("/proc/meminfo").splitlines():
        words = line.split()
        if len(words) > 1:
            table[words[0].rstrip(":")] = int(words[1]) * 1024
    answer: dict[str, Any] = {
        "total": table.get("MemTotal"),
        "available": table.get("MemAvailable"),
        "limit": None,
        "shm_total": None,
        "shm_free": None,
        "shm_writable": os.access("/dev/shm", os.W_OK),
    }
    limit = (
        read("/sys/fs/cgroup/memory.max").strip()
        or read("/sys/fs/cgroup/memory/memory.limit_in_bytes").strip()
    )
    if limit.isdigit() and int(limit) < (table.get("MemTotal") or 0):
        answer["limit"] = int(limit)
    if os.path.isdir("/dev/shm"):
        shm = os.statvfs("/dev/shm")
        answer["shm_total"] = shm.f_frsize * shm.f_blocks
        answer["shm_free"] = shm.f_frsize * shm.f_bavail
    return answer


def limits() -> dict[str, Any]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {"nofile": soft, "nofile_hard": hard}


def service() -> dict[str, Any]:
    """Whether systemd is there, and whether this user's services outlive its logins."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return {
        "systemd": os.path.isdir("/run/systemd/system"),
        "root": os.geteuid() == 0,
        "user": user,
        "linger": os.path.exists("/var/lib/systemd/linger/" + user),
        "manager": os.path.exists(f"/run/user/{os.getuid()}/systemd"),
    }


def ssh_server() -> dict[str, Any]:
    """What sshd lets in at once: its own words in the process list, and its configuration as far as it can be read."""
    answer: dict[str, Any] = {"startups": None, "sessions": None}
    pid = os.getppid()
    for _ in range(12):
        if pid <= 1:
            break
        words = read(f"/proc/{pid}/cmdline", 4096).replace("\0", " ")
        found = re.search(r"\[listener\] \d+ of (\d+)-(\d+) startups", words)
        if found:
            answer["startups"] = [int(found.group(1)), int(found.group(2))]
            break
        fields = read(f"/proc/{pid}/stat")
        pid = int(fields[fields.rindex(")") + 2 :].split()[1]) if ")" in fields else 0
    folder = "/etc/ssh/sshd_config.d"
    files = (
        [os.path.join(folder, name) for name in sorted(os.listdir(folder))] if os.path.isdir(folder) else []
    )
    for path in [*files, "/etc/ssh/sshd_config"]:
        for line in read(path).splitlines():
            key, _, value = line.strip().partition(" ")
            if key.lower() == "match":
                break  # what follows holds for some users only
            if key.lower() == "maxsessions" and value.strip().isdigit() and answer["sessions"] is None:
                answer["sessions"] = int(value)
    return answer
