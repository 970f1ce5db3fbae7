"""Baton: threads of which exactly one runs at a time, and a clock that moves only when all of them wait.

Each thread is a greenlet. Whoever waits hands the baton back; the next is whose time comes first, and the dice decide
between those whose time is the same.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

from greenlet import getcurrent, greenlet


class Killed(BaseException):
    """Thrown into a thread whose process was killed, at its next step: nothing of ours catches it."""


class Task:
    """One thread. `owner` is the process it belongs to; None: the world itself."""

    def __init__(self, name: str, owner: object, body: greenlet) -> None:
        self.name = name
        self.owner = owner
        self.body = body
        self.turn = 0


class Baton:
    def __init__(self, dice: random.Random) -> None:
        self.now = 0.0
        self.steps = 0
        self._dice = dice
        self._queue: list[tuple[float, float, int, Task, int]] = []
        self._count = 0
        self._tasks: dict[greenlet, Task] = {}
        self._dead: list[object] = []  # not their ids: those are given again
        self._hub = getcurrent()

    def spawn(
        self, name: str, work: Callable[[], object], owner: object = None, after_s: float = 0.0
    ) -> Task:
        def run() -> None:
            try:
                self._check(task)
                work()
            except Killed:
                pass
            finally:
                self._tasks.pop(task.body, None)

        task = Task(name, owner, greenlet(run, self._hub))
        self._tasks[task.body] = task
        self._push(task, self.now + after_s)
        return task

    def current(self) -> Task:
        return self._tasks[getcurrent()]

    def sleep(self, seconds: float) -> None:
        """Wait; raises Killed where the process was killed meanwhile."""
        task = self.current()
        self._check(task)
        self._push(task, self.now + max(0.0, seconds))
        self._hub.switch()
        self._check(task)

    def park(self) -> None:
        """Wait until somebody wakes this thread."""
        task = self.current()
        self._check(task)
        task.turn += 1
        self._hub.switch()
        self._check(task)

    def wake(self, task: Task) -> None:
        """Let it go on now, whatever it waits for."""
        if not task.body.dead:
            self._push(task, self.now)

    def kill(self, owner: object) -> None:
        """End the process: none of its threads makes another step."""
        self._dead.append(owner)
        for task in list(self._tasks.values()):
            if task.owner is owner and task.body is not getcurrent():
                self.wake(task)
        if self._tasks and getcurrent() in self._tasks and self.current().owner is owner:
            raise Killed

    def step(self) -> bool:
        """Let the next one run until it waits; False when nobody is left."""
        while self._queue:
            at, _, _, task, turn = heapq.heappop(self._queue)
            if task.turn != turn or task.body.dead:
                continue
            self.now = max(self.now, at)
            self.steps += 1
            task.body.switch()
            return True
        return False

    def close(self) -> None:
        """End whoever still waits."""
        for task in list(self._tasks.values()):
            self._dead.append(task.owner)
            if not task.body.dead and task.body:
                task.body.throw(Killed)
        self._tasks.clear()

    def _check(self, task: Task) -> None:
        if any(owner is task.owner for owner in self._dead):
            raise Killed

    def _push(self, task: Task, at: float) -> None:
        task.turn += 1
        self._count += 1
        heapq.heappush(self._queue, (at, self._dice.random(), self._count, task, task.turn))


class Bell:
    """threading.Event, for threads of a Baton."""

    def __init__(self, baton: Baton) -> None:
        self._baton = baton
        self._rung = False
        self._waiting: list[Task] = []

    def set(self) -> None:
        self._rung = True
        for task in self._waiting:
            self._baton.wake(task)
        self._waiting.clear()

    def is_set(self) -> bool:
        return self._rung

    def clear(self) -> None:
        self._rung = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._rung:
            task = self._baton.current()
            self._waiting.append(task)
            try:
                if timeout is None:
                    self._baton.park()
                else:
                    self._baton.sleep(timeout)
            finally:
                if task in self._waiting:
                    self._waiting.remove(task)
        return self._rung


class Mutex:
    """threading.Lock as a context manager, for threads of a Baton; freed when its holder's process is killed."""

    def __init__(self, baton: Baton) -> None:
        self._baton = baton
        self._held = False

    def __enter__(self) -> None:
        while self._held:
            self._baton.sleep(0.05)
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False
