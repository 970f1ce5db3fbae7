"""Keeps an agent running where there is no systemd: `python -I -S program.py SPEC`. Stands alone, Python >= 3.8.

It starts the agent again after a crash (a signal, or a status other than 0 and HOPELESS), waiting longer each time;
not before the agent has listened once, for what can't start is the operator's to mend; not after a SIGTERM, which it
hands on; and it gives up after so many crashes within the window, as systemd's StartLimitBurst does. Everything that
the agent leaves behind becomes its child (PR_SET_CHILD_SUBREAPER, prctl(2)), so that whoever ends it finds that too;
it stays until the last of them is gone.

SPEC is a JSON file: argv, env, folder, log, log_limit, run_file, state, rlimits {name: value}, group (a folder of
cgroup v2, or null), out_of_memory (what to call an end for memory), crashes, window_s, hopeless, first_s, longest_s.
`state` is written at each change.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from types import FrameType
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38


class Keeper:
    """Of one agent."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.child = 0
        self.stopping = False
        self.restarts = 0
        self.ends: list[float] = []
        self.last = ""

    def tell(self, doing: str) -> None:
        """`doing`: running, waiting (for the next try) or over."""
        told = {
            "pid": os.getpid(),
            "doing": doing,
            "restarts": self.restarts,
            "last": self.last,
            "child": self.child,
        }
        part = self.spec["state"] + ".part"
        try:
            with open(part, "w") as file:
                json.dump(told, file)
            os.replace(part, self.spec["state"])
        except OSError:
            pass  # a full disk keeps nothing from running

    def note(self, text: str) -> None:
        line = "{} fleetctl: {}\n".format(time.strftime("%Y-%m-%dT%H:%M:%S"), text)
        try:
            os.write(2, line.encode("utf-8", "replace"))
        except OSError:
            pass

    def heard(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True
        self.hand_on()

    def hand_on(self) -> None:
        if self.child:
            try:
                os.kill(self.child, signal.SIGTERM)
            except ProcessLookupError:
                pass

    def launch(self) -> None:
        self.rotate()
        block = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            pid = os.fork()
            if pid == 0:
                self.become_the_agent(block)
            self.child = pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, block)

    def become_the_agent(self, block: set[Any]) -> None:
        try:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, block)
            for name, value in self.spec["rlimits"].items():
                kind = getattr(resource, name)
                most = resource.getrlimit(kind)[1]
                if most != resource.RLIM_INFINITY and os.geteuid() != 0:
                    value = min(value, most)
                resource.setrlimit(kind, (value, value))
            if self.spec["group"]:
                with open(os.path.join(self.spec["group"], "cgroup.procs"), "w") as file:
                    file.write("0")
            os.execve(self.spec["argv"][0], self.spec["argv"], self.spec["env"])
        except BaseException as error:
            self.note("{} cannot be run: {}".format(self.spec["argv"][0], error))
        os._exit(127)

    def rotate(self) -> None:
        """The log begins anew over its limit; what was is kept once."""
        path = self.spec["log"]
        try:
            if os.path.exists(path) and os.path.getsize(path) > self.spec["log_limit"]:
                os.replace(path, path + ".1")
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError:
            return
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.close(handle)

    def await_end(self) -> int:
        """The agent's wait status. Others that became our children are buried on the way."""
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == self.child:
                self.child = 0
                return status

    def killed_for_memory(self) -> int:
        """How many of the group's processes the kernel has killed for memory; 0 where nobody counts."""
        try:
            with open(os.path.join(self.spec["group"] or "", "memory.events")) as file:
                return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
        except (OSError, ValueError, IndexError):
            return 0

    def listened(self, pid: int) -> bool:
        try:
            with open(self.spec["run_file"]) as file:
                return bool(json.load(file).get("pid") == pid)
        except (OSError, ValueError):
            return False

    def pause(self, seconds: float) -> None:
        """Wait, and bury what ends meanwhile. Cut short by a SIGTERM."""
        until = time.monotonic() + seconds
        while not self.stopping and time.monotonic() < until:
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                pass
            time.sleep(min(0.1, max(0.0, until - time.monotonic())))

    def run(self) -> int:
        spec = self.spec
        once = False
        while not self.stopping:
            killed = self.killed_for_memory()
            self.launch()
            if self.stopping:
                self.hand_on()
            self.tell("running")
            pid = self.child
            status = self.await_end()
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
            self.last = f"exit status {code}"
            if os.WIFSIGNALED(status):
                self.last = f"killed by signal {os.WTERMSIG(status)}"
                if os.WTERMSIG(status) == signal.SIGKILL and self.killed_for_memory() > killed:
                    self.last = spec["out_of_memory"]
            once = once or self.listened(pid)
            if self.stopping or code == 0:
                break
            now = time.monotonic()
            self.ends = [at for at in self.ends if now - at < spec["window_s"]] + [now]
            if code == spec["hopeless"] or not once:
                break
            if len(self.ends) >= spec["crashes"]:
                self.note(f"the agent crashed {len(self.ends)} times in a short time ({self.last}); given up")
                break
            wait = min(spec["longest_s"], spec["first_s"] * 2 ** (len(self.ends) - 1))
            self.note(f"the agent ended ({self.last}); it is started again in {wait:g} s")
            self.tell("waiting")
            self.pause(wait)
            if not self.stopping:
                self.restarts += 1
        self.tell("over")
        try:
            while True:  # the place of what it left is below us, or nobody would find it any more
                os.waitpid(-1, 0)
        except ChildProcessError:
            return 0 if self.stopping else 1


def main() -> int:
    with open(sys.argv[1]) as file:
        spec = json.load(file)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    keeper = Keeper(spec)
    signal.signal(signal.SIGTERM, keeper.heard)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main())
