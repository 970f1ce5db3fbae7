"""For which Python and which system wheels are wanted. PURE.

Tags are those of PEP 425 and PEP 600 (manylinux) and PEP 656 (musllinux); the names are pip's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_TEXT = re.compile(r"py(3)\.(\d{1,2})-(glibc|musl)(\d{1,2})\.(\d{1,3})-([a-z0-9_]{2,20})")
# Names that manylinux had before PEP 600, by the glibc that they stand for.
_OLD_NAMES = {(2, 5): "manylinux1", (2, 12): "manylinux2010", (2, 17): "manylinux2014"}
_OLDEST_GLIBC = 5


@dataclass(frozen=True, order=True)
class Target:
    """A CPython on Linux: `python` and `libc_version` as (3, 11) and (2, 36), `libc` glibc or musl."""

    python: tuple[int, int]
    libc: str
    libc_version: tuple[int, int]
    machine: str

    def __str__(self) -> str:
        return f"py{_dotted(self.python)}-{self.libc}{_dotted(self.libc_version)}-{self.machine}"

    @property
    def platforms(self) -> list[str]:
        """Platform tags, the best first."""
        major, newest = self.libc_version
        found = []
        if self.libc == "musl":
            found = [f"musllinux_{major}_{minor}_{self.machine}" for minor in range(newest, -1, -1)]
        else:
            for minor in range(newest, _OLDEST_GLIBC - 1, -1):
                found.append(f"manylinux_{major}_{minor}_{self.machine}")
                if old := _OLD_NAMES.get((major, minor)):
                    found.append(f"{old}_{self.machine}")
        return [*found, f"linux_{self.machine}"]

    def pip_options(self) -> list[str]:
        """What makes pip choose wheels for it, whatever it runs on itself."""
        options = ["--only-binary", ":all:", "--implementation", "cp"]
        options += ["--python-version", _dotted(self.python), "--abi", f"cp{self.python[0]}{self.python[1]}"]
        for platform in self.platforms:
            options += ["--platform", platform]
        return options

    def markers(self) -> dict[str, str]:
        """The environment in which markers of requirements hold or not (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{_dotted(self.python)}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{_dotted(self.python)}.0",
            "python_version": _dotted(self.python),
            "sys_platform": "linux",
        }

    def serves(self, other: Target) -> bool:
        """Whether wheels for this one run on `other` too: the same, with a C library at least as new."""
        same = (self.python, self.libc, self.libc_version[0], self.machine)
        there = (other.python, other.libc, other.libc_version[0], other.machine)
        return same == there and self.libc_version <= other.libc_version


def parse(text: str) -> Target:
    """What `str` of a Target gives, as py3.11-glibc2.36-x86_64. Raises ValueError."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError(
            f'"{text[:60]}" is not a system; write it like py3.11-glibc2.36-x86_64 (Python, C library as '
            "`ldd --version` tells it, machine as `uname -m` does)"
        )
    major, minor, libc, libc_major, libc_minor, machine = found.groups()
    return Target((int(major), int(minor)), libc, (int(libc_major), int(libc_minor)), machine)


def told(facts: Mapping[str, object]) -> Target:
    """The target that a host's keeper tells. Raises ValueError for a Python that no wheels are made for."""
    if facts.get("implementation") != "cpython":
        raise ValueError(
            f"it runs {str(facts.get('implementation'))[:20]}, and wheels are chosen for CPython"
        )
    return parse(f"py{facts.get('python')}-{facts.get('libc')}-{facts.get('machine')}")


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
