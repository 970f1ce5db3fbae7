"""A GPU of a host, as nvidia-smi tells it: whoever has a file of it open holds that much of its memory.

There is none here, so `nvidia-smi` is a small program. Its answers are not written down in advance: it looks at the
real processes, and so what is told follows what lives.
"""

from __future__ import annotations

import sys

from fleet_lab.host import PATH, Host

MIB = 1024 * 1024
TOTAL_MIB = 24576
IDLE_MIB = 300

PROGRAM = """#!{python}
import os, sys
folder = {folder!r}
held = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        for handle in os.listdir("/proc/%s/fd" % pid):
            path = os.readlink("/proc/%s/fd/%s" % (pid, handle))
            if path.startswith(folder + "/memory-"):
                held.append((pid, int(path.rsplit("-", 1)[1])))
    except OSError:
        pass
lost = int(open(folder + "/lost").read())
if "--query-gpu" in " ".join(sys.argv):
    print("0, GPU-lab, %d, {total}" % ({idle} + lost + sum(size for _, size in held)))
else:
    for pid, size in held:
        print("%s, GPU-lab, %d" % (pid, size))
"""


class Gpu:
    """Of `host`, whose logins find its nvidia-smi."""

    def __init__(self, host: Host) -> None:
        self._folder = host.folder / "gpu"
        self._folder.mkdir()
        self.lose(0)
        program = self._folder / "nvidia-smi"
        text = PROGRAM.format(python=sys.executable, folder=str(self._folder), total=TOTAL_MIB, idle=IDLE_MIB)
        program.write_text(text)
        program.chmod(0o755)
        host.find_programs_in(f"{self._folder}:{PATH}")

    def memory(self, mib: int) -> str:
        """A file: whoever has it open holds so much."""
        path = self._folder / f"memory-{mib}"
        path.touch()
        return str(path)

    def lose(self, mib: int) -> None:
        """So much is in use that no process holds, as a driver that hangs leaves it."""
        (self._folder / "lost").write_text(str(mib))
