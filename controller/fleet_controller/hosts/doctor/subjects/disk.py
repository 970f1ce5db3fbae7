"""The folder that fleetctl uses on a host: room, rights, what is installed, what was left. PURE."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.facts import Fact, items, mapping, text
from fleet_controller.hosts.doctor.finding import Finding, problem, unknown, warning, well

# An environment with torch takes 6 GB where CUDA comes with it; without an environment a release is all.
NEEDED = 1 << 30
WANTED = 12 << 30
INODES = 50_000
NETWORKED = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p")


def judge(chart: Chart) -> Iterator[Finding]:
    fact = chart.facts.of("disk")
    if fact.missing:
        yield unknown("disk", f"the disk under {chart.spec.install.directory} is unknown: {fact.missing}")
    else:
        trouble = [*_rights(fact), *_room(chart, fact)]
        yield from trouble or [well("disk", f"{gib(fact.number('free'))} free in {fact.text('there')}")]
    yield from _left(chart)
    yield from _releases(chart)


def _rights(fact: Fact) -> Iterator[Finding]:
    path, there = fact.text("path"), fact.text("there")
    quoted = shlex.quote(there)
    elsewhere = "or set install.directory to another place"
    mode = fact.number("mode")
    if fact.yes("read_only"):
        fix = f"on the host: sudo mount -o remount,rw {quoted} (dmesg tells why it is so), {elsewhere}"
        yield problem("disk", f"{there} is mounted read-only", "nothing can be installed there", fix)
        return
    if fact.no("folder"):
        fix = f"on the host: mv {quoted} {shlex.quote(there + '.old')}, {elsewhere}"
        yield problem("disk", f"{there} is not a folder", "nothing can be installed there", fix)
        return
    if fact.no("writable"):
        mendable = fact.yes("exists") and fact.yes("ours")
        owner = f"chmod 700 {quoted}" if mendable else f'sudo chown -R "$USER" {quoted}'
        yield problem(
            "disk",
            f"this user may not write to {there}",
            "nothing can be installed there",
            f"on the host: {owner}, {elsewhere}",
            "folder" if mendable else None,
        )
        return
    if fact.yes("exists") and fact.yes("ours") and mode is not None and int(mode) & 0o077:
        why = "tokens and logs of the agent lie below it"
        fix = f"on the host: chmod 700 {quoted}"
        yield warning("disk", f"{path} is open to other users (mode {int(mode):04o})", why, fix, "folder")
    if fact.yes("noexec"):
        why = "the agent's environment holds programs and libraries, which can't be run from there"
        fix = f"on the host: sudo mount -o remount,exec {quoted}, {elsewhere}"
        yield problem("disk", f"{there} is mounted noexec", why, fix)
    if fact.text("type") in NETWORKED:
        why = "locks and start-up are slow or unsafe on it, and all hosts share its failure"
        fix = "Set install.directory to a disk of the machine's own"
        yield warning("disk", f"{there} is on {fact.text('type')}", why, fix)


def _room(chart: Chart, fact: Fact) -> Iterator[Finding]:
    there = fact.text("there")
    free, inodes, inodes_free = fact.number("free"), fact.number("inodes"), fact.number("inodes_free")
    fix = f"on the host: df -h {shlex.quote(there)}; free space, or set install.directory to a bigger disk"
    own = chart.spec.install.interpreter is not None or chart.spec.is_local
    if free is None:
        yield unknown("disk", f"how much room {there} has is unknown")
    elif free < NEEDED:
        yield problem("disk", f"{gib(free)} free in {there}", "a release and its environment do not fit", fix)
    elif free < WANTED and not own:
        why = "an environment with torch and CUDA takes about 6 GiB, twice that while a newer one is made"
        yield warning("disk", f"{gib(free)} free in {there}", why, fix)
    if inodes and inodes_free is not None and inodes_free < INODES:
        why = "an environment has tens of thousands of files; the disk is full for new ones although it has room"
        fix = f"on the host: df -i {shlex.quote(there)}; remove what has many small files"
        yield problem("disk", f"{inodes_free:.0f} inodes free in {there}", why, fix)


def _left(chart: Chart) -> Iterator[Finding]:
    fact = chart.facts.of("abandoned")
    count = fact.number("count") or 0
    if count:
        paths = ", ".join(text(path) for path in items(fact.value.get("paths"))[:3])
        why = "they take room and nobody will finish them"
        fix = "fleetctl doctor --fix removes them"
        yield warning("left-overs", f"{count:.0f} interrupted transfers: {paths}", why, fix, "left-overs")


def _releases(chart: Chart) -> Iterator[Finding]:
    fact = chart.facts.of("releases")
    if fact.missing:
        yield unknown("release", f"what is installed is unknown: {fact.missing}")
        return
    known, wanted = mapping(fact.value.get("ill")), fact.text("wanted")
    broken = sorted(text(key) for key, why in known.items() if why != "")
    fix = "fleetctl up installs it again"
    if wanted and wanted not in known:
        why = "the next start installs it anew, which takes longer"
        yield warning("release", f"release {wanted}, which ran last, is not installed any more", why, fix)
    if broken:
        told = "; ".join(text(known.get(key)) or f"release {key} is damaged" for key in broken)
        why = "such a release is never started"
        yield (problem if wanted in broken else warning)("release", told, why, fix)
    elif known:
        yield well("release", f"{len(known)} installed, whole")
    elif not wanted:
        yield well("release", "nothing is installed yet")


def gib(count: float | None) -> str:
    if count is None:
        return "an unknown number of bytes"
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"
