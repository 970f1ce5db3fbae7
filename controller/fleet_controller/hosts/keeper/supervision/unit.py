"""The systemd unit of an agent, as text. PURE: what is measured on the host comes in, nothing is looked at here.

Sources: systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.resource-control(5).
"""

from __future__ import annotations

# What a unit may look like otherwise; "-" stands between our words, so one inside the fleet's name is written \x2d.
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.")
HOMES = ("/home/", "/root/", "/run/user/")
# The agent says with this status that its configuration can't be used: no further try will go better.
HOPELESS = 2
# Run in the agent's own control group when it has ended, with EXIT_CODE and EXIT_STATUS (systemd.exec(5)): how it ended
# and how many of its processes the kernel killed for memory go into the file $1. systemd forgets the one at the next
# start, and with OOMPolicy=continue does not tell the other. One line, as a unit needs it; one process, which systemd
# names while it runs (ControlPID), or a stop would take its children for the agent's. `code` comes last: what has none
# is not whole.
NOTE_END = (
    'exec > "$1"; '
    "while IFS=: read -r number kinds path; do "
    'case ",$kinds," in '
    ',,) file="/sys/fs/cgroup$path/memory.events" ;; '
    '*,memory,*) file="/sys/fs/cgroup/memory$path/memory.oom_control" ;; '
    "*) continue ;; esac; "
    'test -r "$file" || continue; while read -r line; do echo "$line"; done < "$file"; '
    'done < /proc/self/cgroup; echo "status $EXIT_STATUS"; echo "code $EXIT_CODE"'
)
# As the controller reckons: so many crashes within this time and nobody tries any more; calm for so long is forgiven.
CRASHES = 5
WINDOW_S = 1800
# Longer than drain_timeout until systemd kills: the agent has its own bound, and should meet that one first.
STOP_MARGIN_S = 10


def unit_name(fleet: str, host: str) -> str:
    """fleetctl-FLEET-HOST.service. No two pairs have the same: the first raw "-" behind the fleet ends it."""
    name = "fleetctl-{}-{}".format(escaped(fleet, ""), escaped(host, "-"))
    return name + ".service"


def escaped(word: str, also: str) -> str:
    """As systemd-escape(1) does it; `also` stays as it is."""
    plain = (c if c in PLAIN or c in also else "".join(f"\\x{b:02x}" for b in c.encode()) for c in word)
    return "".join(plain)


def quoted(word: str, command: bool = False) -> str:
    """One word of a setting: specifiers, quotes and, in a command line, variables mean nothing in it."""
    for bad in "\n\r\0":
        if bad in word:
            raise ValueError(f"{word[:60]!r} holds a line end, which no unit can")
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if command:
        word = word.replace("$", "$$")
    return f'"{word}"'


def path_of(word: str) -> str:
    """A path in a setting that takes no quotes."""
    if any(ord(c) < 32 for c in word):
        raise ValueError(f"{word[:60]!r} holds a control character, which no unit can")
    return word.replace("%", "%%")


def home_word(needed: list[str]) -> str:
    """ProtectHome: homes are out of sight, but read-only where something that the agent needs lies in one."""
    return "read-only" if any((path + "/").startswith(HOMES) for path in needed) else "yes"


def environment_text(env: dict[str, str]) -> str:
    """The file of an EnvironmentFile=. What no such file can hold, a name with a dot for one, is left out."""
    lines = []
    for name, value in sorted(env.items()):
        plain = name.isascii() and name.replace("_", "a").isalnum() and not name[0].isdigit()
        if plain and not any(bad in value for bad in "\n\r\0"):
            for special in '\\"`$':
                value = value.replace(special, "\\" + special)
            lines.append(f'{name}="{value}"\n')
    return "".join(lines)


class UnitSpec:
    """What goes into a unit.

    `environment`: a file, for what units say everybody may read. `ended`: a file for how it ended last. `user` "": of
    a user manager. `limits`: memory (bytes), cpus, tasks, open_files, each may be None. `needed`: paths that the agent
    reads; `writable`: paths that it writes. `port` under 1024 needs a capability. `contained`: the host is a container.
    """

    def __init__(
        self,
        title: str,
        argv: list[str],
        environment: str,
        ended: str,
        folder: str,
        user: str,
        drain_s: float,
        limits: dict[str, float | None],
        needed: list[str],
        writable: list[str],
        port: int,
        contained: bool = False,
    ) -> None:
        self.title = title
        self.argv = argv
        self.environment = environment
        self.ended = ended
        self.folder = folder
        self.user = user
        self.drain_s = drain_s
        self.limits = limits
        self.needed = needed
        self.writable = writable
        self.port = port
        self.contained = contained


def note_end(path: str) -> list[str]:
    """The command that does NOTE_END."""
    return ["/bin/sh", "-c", NOTE_END, "sh", path]


def unit_text(spec: UnitSpec) -> str:
    """The whole file. It has no [Install]: after a reboot the controller decides who serves, not the machine.

    Raises ValueError for what no unit can hold.
    """
    lines = [
        "# Written by fleetctl at each start; changes are lost. `fleetctl down` takes it away.",
        "[Unit]",
        "Description=" + path_of(spec.title),
        f"StartLimitIntervalSec={WINDOW_S}",
        f"StartLimitBurst={CRASHES}",
        "",
        "[Service]",
        "Type=exec",
        "ExecStart=" + " ".join(quoted(word, command=True) for word in spec.argv),
        "ExecStopPost=-" + " ".join(quoted(word, command=True) for word in note_end(spec.ended)),
        "WorkingDirectory=" + path_of(spec.folder),
        "EnvironmentFile=" + path_of(spec.environment),
        *([f"User={spec.user}"] if spec.user else []),
        "UMask=0077",
        # The agent ends well on SIGTERM and stays down; a crash, or a kill, brings it back.
        "Restart=on-failure",
        "RestartSec=1",
        f"RestartPreventExitStatus={HOPELESS}",
        # SIGTERM for the agent alone, whose workers must live until it has drained; SIGKILL for all that is left.
        "KillMode=mixed",
        f"TimeoutStopSec={spec.drain_s + STOP_MARGIN_S:g}",
        # A worker that the kernel kills for its memory is started again by the agent, within.
        "OOMPolicy=continue",
        "StandardOutput=journal",
        "StandardError=journal",
        *(["LimitMEMLOCK=infinity"] if spec.user else []),  # pinned memory; a user manager may not raise it
        *_limits(spec.limits),
        "",
        *_hardening(spec),
    ]
    return "\n".join(lines) + "\n"


def _limits(limits: dict[str, float | None]) -> list[str]:
    memory, cpus = limits.get("memory"), limits.get("cpus")
    tasks, files = limits.get("tasks"), limits.get("open_files")
    return [
        *([f"MemoryMax={memory:.0f}", "MemorySwapMax=0"] if memory is not None else []),
        *([f"CPUQuota={cpus * 100:.0f}%"] if cpus is not None else []),
        *([f"TasksMax={tasks:.0f}"] if tasks is not None else []),
        *([f"LimitNOFILE={files:.0f}"] if files is not None else []),
    ]


def _hardening(spec: UnitSpec) -> list[str]:
    plain = [
        "NoNewPrivileges=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "RestrictRealtime=yes",
        "SystemCallArchitectures=native",
    ]
    if not spec.user:
        # A user manager makes no mount namespaces without user namespaces, and hands out no devices.
        return plain
    low = 0 < spec.port < 1024
    return [
        *plain,
        "CapabilityBoundingSet=" + ("CAP_NET_BIND_SERVICE" if low else ""),
        *(["AmbientCapabilities=CAP_NET_BIND_SERVICE"] if low else []),
        "ProtectSystem=strict",
        "ProtectHome=" + home_word([spec.folder, *spec.needed, *spec.writable]),
        *("ReadWritePaths=" + quoted(path) for path in spec.writable),
        "PrivateTmp=yes",
        # In a container both uncover the boot-id of the machine around it, by which we tell one boot from another.
        *(["ProtectKernelTunables=yes", "ProtectControlGroups=yes"] if not spec.contained else []),
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "RestrictNamespaces=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        # closed: null, zero, full, random, urandom, tty, ptmx. /dev/shm is memory, no device, and stays writable.
        "DevicePolicy=closed",
        "DeviceAllow=char-nvidia* rw",
        "DeviceAllow=char-drm rw",
        "DeviceAllow=char-kfd rw",
        "DeviceAllow=char-infiniband* rw",
    ]
