"""NVIDIA's driver: is there a device, is the driver there, do kernel module and library belong together? PURE."""

from __future__ import annotations

from collections.abc import Iterator

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.facts import Fact, items, mapping, text
from fleet_controller.hosts.doctor.finding import Finding, problem, skipped, unknown, warning, well
from fleet_controller.hosts.doctor.subjects import smi

CPU_ONLY = "agents would compute on the CPU, or not start at all where agent.device names a GPU"
INSTALL = (
    "on the host: sudo apt-get install -y nvidia-driver firmware-misc-nonfree (Ubuntu: sudo ubuntu-drivers install"
    " --gpgpu), then reboot"
)


def judge(chart: Chart) -> Iterator[Finding]:
    fact = chart.facts.of("driver")
    if fact.missing:
        yield unknown("driver", f"whether it has an NVIDIA device is unknown: {fact.missing}")
        return
    if not present(fact):
        if chart.spec.agent.device.startswith("cuda"):
            fix = "Look at the machine (lspci -d 10de:), pass the GPU through to the VM, or correct agent.device"
            yield problem(
                "driver", "it has no NVIDIA device", f"agent.device is {chart.spec.agent.device}", fix
            )
        else:
            yield skipped("driver", "no NVIDIA device")
        return
    said = smi.complaint(chart.facts.of("gpus"))
    trouble = list(_module(fact, said, bool(chart.facts.of("gpus").missing))) or list(
        _tool(chart, fact, said)
    )
    yield from trouble or _well(chart, fact)


def present(fact: Fact) -> bool:
    return bool(items(fact.value.get("devices")) or fact.number("nodes") or fact.text("smi"))


def _module(fact: Fact, said: str, hangs: bool) -> Iterator[Finding]:
    """What lies before nvidia-smi can say anything. `hangs`: it says nothing, so there is a driver."""
    bound = [text(mapping(device).get("driver")) for device in items(fact.value.get("devices"))]
    kernel, library = fact.text("kernel_version"), fact.text("library_version")
    if smi.mismatch(said) or (kernel and library and not alike(kernel, library)):
        what = (
            f"the kernel has driver {kernel or 'of one version'}, the libraries are {library or 'of another'}"
        )
        yield problem(
            "driver",
            f"driver and library do not match: {what}",
            "every program that uses the GPU fails to start; what runs already goes on, until it is restarted",
            "fleetctl drain {host}; then on the host: sudo reboot (an update left the old module loaded)",
        )
    elif "nouveau" in bound or (fact.yes("nouveau") and not fact.yes("module")):
        yield problem(
            "driver",
            "the open driver nouveau has the GPU",
            "NVIDIA's own driver can't take it, and CUDA needs that one",
            "on the host: printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' | sudo tee"
            " /etc/modprobe.d/blacklist-nouveau.conf && sudo update-initramfs -u && sudo reboot",
        )
    elif "vfio-pci" in bound and not fact.yes("module"):
        why = "it is set aside for a virtual machine: agents on this host can't use it"
        yield problem(
            "driver", "the GPU is bound to vfio-pci", why, "Name the VM as the host, not its hypervisor"
        )
    elif said and not hangs and not fact.yes("module") and not kernel and _unseen(fact, said):
        count = len(bound)
        yield problem(
            "driver", f"{count or 'some'} NVIDIA device(s), and no driver is loaded", CPU_ONLY, INSTALL
        )


def _unseen(fact: Fact, said: str) -> bool:
    return smi.no_driver(said) or not fact.number("nodes")


def _tool(chart: Chart, fact: Fact, said: str) -> Iterator[Finding]:
    """The driver is there; what nvidia-smi makes of it."""
    if smi.lost(said):
        yield problem(
            "driver",
            f"a GPU does not answer: {said}",
            "it has fallen off the bus, and what ran there hangs or is dead",
            "Switch the host off and on; if it comes back, reseat or replace the GPU",
        )
    elif smi.no_driver(said):
        yield problem(
            "driver", said, CPU_ONLY, "on the host: sudo modprobe nvidia; dmesg | grep -i nvrm tells more"
        )
    elif chart.facts.of("gpus").yes("missing"):
        why = "it is what tells of memory, errors and throttling"
        yield warning(
            "driver", said, why, "on the host: sudo apt-get install -y nvidia-smi (or nvidia-utils-...)"
        )
    elif said and chart.facts.of("gpus").missing:
        yield problem(
            "driver",
            f"the driver hangs ({said})",
            "who asks it hangs too: the agent would not get ready, and stopping can't be proved",
            "on the host: dmesg | grep -i -e nvrm -e xid; then reboot it",
        )
    elif said:
        yield problem("driver", said, CPU_ONLY, "on the host: nvidia-smi; dmesg | grep -i nvrm")
    denied = [text(node) for node in items(fact.value.get("denied"))]
    if denied:
        fix = 'on the host: sudo usermod -aG video "$USER" (and render), then log in anew'
        yield problem("driver", f"this user may not open /dev/{denied[0]}", CPU_ONLY, fix)


def _well(chart: Chart, fact: Fact) -> Iterator[Finding]:
    rows = smi.table(chart.facts.of("gpus"))
    version = fact.text("kernel_version") or next((row.text("driver_version") for row in rows), "")
    names = sorted({row.text("name") for row in rows} - {""})
    plugged = len(items(fact.value.get("devices")))
    if plugged > len(rows):
        what = f"{plugged} NVIDIA devices are plugged in, the driver shows {len(rows)}"
        why = "the missing one failed, or has no power"
        yield problem("driver", what, why, "on the host: nvidia-smi -L; lspci -d 10de:; dmesg | grep -i nvrm")
    elif not rows:
        yield unknown("driver", "nvidia-smi shows no device")
    else:
        yield well(
            "driver", f"{len(rows)} x {', '.join(names) or 'an unnamed GPU'}, driver {version or 'unknown'}"
        )
    off = [row.text("index") for row in rows if row.yes("persistence_mode") is False]
    if off:
        yield warning(
            "persistence",
            f"persistence mode is off (GPU {', '.join(off)})",
            "the driver unloads between two programs: each start takes seconds longer, and settings are lost",
            "on the host: sudo nvidia-smi -pm 1 (or enable nvidia-persistenced, which survives a reboot)",
            "persistence",
        )


def alike(kernel: str, library: str) -> bool:
    """NVML's file may have fewer parts than the module: 550.54 beside 550.54.14."""
    short, long = sorted((kernel, library), key=len)
    return long == short or long.startswith(short + ".")
