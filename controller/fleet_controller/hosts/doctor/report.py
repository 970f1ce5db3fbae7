"""What an examination came to, and with which exit code it ends. PURE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from fleet_controller.hosts.doctor.finding import Finding, Severity

# Exit codes of the command line's contract.
ALL_WELL, PROBLEMS, SOME_HOSTS, NOTHING_REACHED = 0, 1, 3, 4


@dataclass(frozen=True)
class HostReport:
    """One host. `reached`: it answered over SSH (or is this machine); `off`: it is switched off, and was left alone."""

    name: str
    address: str
    reached: bool
    seconds: float
    findings: tuple[Finding, ...]
    off: bool = False

    @property
    def ill(self) -> bool:
        return any(finding.severity is Severity.PROBLEM for finding in self.findings)


@dataclass(frozen=True)
class Report:
    """All of it. `at` in Unix seconds; `here` is about the operator's machine."""

    at: float
    seconds: float
    here: tuple[Finding, ...]
    hosts: tuple[HostReport, ...]

    def each(self) -> Iterator[tuple[str, Finding]]:
        """Every finding with its host's name, "" for this machine."""
        for finding in self.here:
            yield "", finding
        for host in self.hosts:
            for finding in host.findings:
                yield host.name, finding

    def counts(self) -> dict[str, int]:
        found = Counter(finding.severity for _, finding in self.each())
        return {severity.value: found[severity] for severity in Severity}

    def exit_code(self) -> int:
        """0: no problem (warnings and what is unknown do not count). 4: no host that is on was reached. 3: some hosts
        have problems and at least one has none. 1: all have, or this machine has."""
        tried = [host for host in self.hosts if not host.off]
        if tried and not any(host.reached for host in tried):
            return NOTHING_REACHED
        if any(finding.severity is Severity.PROBLEM for finding in self.here):
            return PROBLEMS
        ill = [host for host in tried if host.ill]
        if not ill:
            return ALL_WELL
        return SOME_HOSTS if len(ill) < len(tried) else PROBLEMS


@dataclass(frozen=True)
class Mend:
    """Something that --fix does on `host` ("": this machine); `says` is what it does, `check` what it is for."""

    host: str
    name: str
    check: str
    says: str


SAYS = {
    "folder": "make install.directory, or close it to other users (mode 0700)",
    "left-overs": "remove what transfers and installations that nobody took up again for two days have left",
    "linger": "let services of this user outlive its logins (loginctl enable-linger; sudo)",
    "persistence": "switch persistence mode on (nvidia-smi -pm 1; sudo)",
    "key-mode": "close private keys and password files to other users (chmod 600)",
    "state-mode": "close the state folder to other users (chmod 700)",
    "host-key": "note down the keys of hosts that known_hosts does not name",
}
# Done only when it was asked for in so many words.
TRUST = "host-key"


def mends(report: Report, trust: bool) -> list[Mend]:
    """What --fix would do, each once a host."""
    found: dict[tuple[str, str], Mend] = {}
    for host, finding in report.each():
        if finding.mend is not None and (trust or finding.mend != TRUST):
            key = (host, finding.mend)
            found.setdefault(key, Mend(host, finding.mend, finding.check, SAYS[finding.mend]))
    return list(found.values())


def still(mend: Mend, after: Report) -> bool:
    """Whether what was to be mended is there yet."""
    return any(host == mend.host and finding.mend == mend.name for host, finding in after.each())
