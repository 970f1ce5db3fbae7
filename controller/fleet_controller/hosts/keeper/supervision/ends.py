"""How an agent ended last, in words. PURE: what was noted at its end comes in.

Sources: systemd.exec(5) on EXIT_CODE and EXIT_STATUS; the kernel's cgroup-v2.rst on memory.events and its
cgroup-v1/memory.rst on memory.oom_control.
"""

from __future__ import annotations

import signal

KILLED = ("killed", "dumped")


def noted_words(text: str, limit: int | None) -> str:
    """`text`: what unit.NOTE_END wrote, a name and its value a line; "" where it holds nothing. `limit`: bytes.

    That the kernel killed for memory is counted for all processes of the agent together. So one that was killed
    otherwise after one of its workers was killed for memory is told as out of memory, too.
    """
    said = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    code, status = said.get("code", ""), said.get("status", "")
    if code == "exited":
        return f"exit status {status}"
    if code not in KILLED:
        return ""
    if status == "KILL" and number(said.get("oom_kill")):
        # Version 2 counts apart how often a limit was met; version 1 does not.
        return out_of_memory(limit if number(said.get("oom", "1")) else None)
    return f"killed by signal {signal_number(status)}"


def out_of_memory(limit: int | None) -> str:
    """`limit`: what agent.limits.memory allowed, in bytes; None: it was the machine's own memory that ended."""
    if limit is None:
        return "killed by the kernel: the machine was out of memory"
    return f"out of memory: the limit agent.limits.memory {size(limit)} was reached"


def size(count: int) -> str:
    """As an operator writes it."""
    for unit, many in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if count >= many and count % many == 0:
            return f"{count // many} {unit}"
    return f"{count / 1e6:.0f} MB"


def number(word: str | None) -> int:
    return int(word) if word is not None and word.isdigit() else 0


def signal_number(name: str) -> str:
    found = getattr(signal, "SIG" + name, None)
    return name if found is None else str(int(found))
