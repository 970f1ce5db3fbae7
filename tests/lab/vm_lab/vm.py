"""One virtual machine: a disk over the image, who it is, and its domain. Switched by whoever asks libvirt."""

from __future__ import annotations

import io
import socket
import subprocess
import tarfile
import time
from pathlib import Path

from fleet_lab.host import make_key, program

from vm_lab.hypervisor import Hypervisor
from vm_lab.image import USER, Image

DOMAIN = """<domain type='{type}'>
  <name>{name}</name>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>{cpus}</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off quiet</cmdline>
  </os>
  <features><acpi/>{features}</features>
  <cpu mode='{cpu}'/>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='unsafe' discard='unmap'/>
      <source file='{disk}'/><target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{seed}'/><target dev='vdb' bus='virtio'/><readonly/>
    </disk>
    <interface type='bridge'><source bridge='br0'/><mac address='{mac}'/><model type='virtio'/></interface>
    <serial type='file'><source path='{console}'/></serial>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memballoon model='none'/>
  </devices>
</domain>
"""
# Emulated processors translate the guest's code: what is translated is kept here.
TRANSLATIONS = "<tcg><tb-cache unit='MiB'>256</tb-cache></tcg>"


class Vm:
    """A domain that is defined and off. `address` is its own, and leads nowhere but to the bridge."""

    def __init__(
        self, name: str, number: int, folder: Path, image: Image, hypervisor: Hypervisor, client_key: Path
    ) -> None:
        self.name = name
        self.user = USER
        self.address = f"10.77.0.{200 + number}"
        self.client_key = client_key
        self.known_hosts = client_key.with_name("known_hosts")
        self._hypervisor = hypervisor
        self._folder = folder
        folder.mkdir()
        make_key(folder / "host_key")
        self._seed(folder / "seed.tar")
        disk = folder / "disk.qcow2"
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.disk), "-F", "raw", str(disk)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        emulated = hypervisor.type == "qemu"
        domain = folder / "domain.xml"
        domain.write_text(
            DOMAIN.format(
                type=hypervisor.type,
                name=name,
                memory_mib=3072,
                cpus=2,
                kernel=image.kernel,
                initrd=image.initrd,
                features=TRANSLATIONS if emulated else "",
                cpu="maximum" if emulated else "host-passthrough",
                disk=disk,
                seed=folder / "seed.tar",
                mac=f"02:00:00:00:02:{number:02x}",
                console=folder / "console",
            )
        )
        hypervisor.do("define", str(domain))

    def __repr__(self) -> str:
        return f"<Vm {self.name} {self.address} {self.state()}>"

    def _seed(self, path: Path) -> None:
        keys = {name: (self._folder / name).read_bytes() for name in ("host_key", "host_key.pub")}
        network = f"[Match]\nName=eth0\n[Network]\nAddress={self.address}/24\nLinkLocalAddressing=no\n"
        home = f"home/{USER}/.ssh"
        public = self.client_key.with_name(self.client_key.name + ".pub").read_bytes()
        with tarfile.open(path, "w") as tar:
            _add(tar, "etc/hostname", f"{self.name}\n".encode())
            _add(tar, "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n".encode())
            _add(tar, "etc/systemd/network/10-cable.network", network.encode())
            _add(tar, "etc/ssh/ssh_host_ed25519_key", keys["host_key"], 0o600)
            _add(tar, "etc/ssh/ssh_host_ed25519_key.pub", keys["host_key.pub"])
            _add(tar, home, None, 0o700, 1000)
            _add(tar, f"{home}/authorized_keys", public, 0o600, 1000)

    def key_line(self) -> str:
        """The line of known_hosts for this machine."""
        return f"{self.address} {' '.join((self._folder / 'host_key.pub').read_text().split()[:2])}"

    def state(self) -> str:
        """What libvirt says: "running", "shut off", ..."""
        return self._hypervisor.state(self.name)

    def greets(self) -> bool:
        try:
            with socket.create_connection((self.address, 22), 1) as stream:
                stream.settimeout(3)
                return stream.recv(3) == b"SSH"
        except OSError:
            return False

    def wait_greets(self, within_s: float) -> float:
        """Seconds until its SSH server answers. Raises RuntimeError with its console."""
        began = time.monotonic()
        while not self.greets():
            if time.monotonic() - began > within_s:
                raise RuntimeError(f"{self.name} does not answer after {within_s:.0f} s:\n{self.console()}")
            time.sleep(0.5)
        return time.monotonic() - began

    def sh(self, line: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """A shell command there, by OpenSSH's own client: what a person would see."""
        options = [
            "BatchMode=yes",
            f"UserKnownHostsFile={self.known_hosts}",
            "ConnectTimeout=20",
            "LogLevel=ERROR",
        ]
        argv = [program("ssh"), "-F", "none", "-i", str(self.client_key)]
        argv += [word for option in options for word in ("-o", option)]
        return subprocess.run(
            [*argv, f"{self.user}@{self.address}", line],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
        )

    def console(self) -> str:
        path = self._folder / "console"
        return path.read_text(errors="replace")[-5000:] if path.exists() else ""

    def entry(self, **changes: object) -> dict[str, object]:
        """This machine as an entry of `hosts:` in fleet.yaml."""
        return {
            "name": self.name,
            "address": self.address,
            "ssh": {
                "user": self.user,
                "identity_file": str(self.client_key),
                "known_hosts": str(self.known_hosts),
            },
            **changes,
        }


def _add(tar: tarfile.TarFile, name: str, data: bytes | None, mode: int = 0o644, owner: int = 0) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.uid, entry.gid, entry.mtime = mode, owner, owner, int(time.time())
    if data is None:
        entry.type = tarfile.DIRTYPE
    else:
        entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data or b""))
