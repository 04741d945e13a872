"""Child processes that are stopped together, and the cores that they run on."""

import os
import pathlib
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from genmask_jax.utils.errors import UserError
from genmask_jax.utils.workers import HUGE_PAGES


class Processes:
    """Runs commands from several threads.

    After SIGINT or SIGTERM, running commands are stopped, and no other starts.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen] = set()

    def run(self, command: Sequence[str], log: os.PathLike, lock: int) -> int | None:
        """Runs a command to completion.

        Args:
            command: the command.
            log: file to which its output is appended.
            lock: descriptor of a lock that the command holds until it ends, even if this process is killed.

        Returns:
            The exit status; None if the command was stopped, or not started.
        """
        with open(log, "ab") as output:
            with self._lock:
                if self.stopping:
                    return None
                environment = HUGE_PAGES | os.environ
                child = subprocess.Popen(
                    command, stdout=output, stderr=subprocess.STDOUT, env=environment, pass_fds=[lock]
                )
                self._children.add(child)
            status = child.wait()
        with self._lock:
            self._children.discard(child)
        return None if status and self.stopping else status

    @contextmanager
    def answering_signals(self) -> Iterator[None]:
        """Handles SIGINT and SIGTERM; for the main thread."""
        old_handlers = {
            number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in old_handlers.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: Any) -> None:
        """Asks all commands to save and end."""
        self.stopping = True  # before the lock, which a thread that starts a command may hold
        with self._lock:
            for child in self._children:
                child.send_signal(signal.SIGTERM)


def divide_cores(count: int) -> list[list[int]]:
    """Divides the cores of this process into `count` parts; [] where the platform cannot pin processes.

    Raises:
        UserError: there are fewer cores.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        raise UserError(f"--processes={count}: this process may use only {len(cores)} cores")
    size = len(cores) / count
    return [cores[round(i * size) : round((i + 1) * size)] for i in range(count)]


def pin_thread(parts: list[list[int]]) -> None:
    """Takes the last of `parts` off the list, and pins this thread and its future children to its cores."""
    if parts:
        os.sched_setaffinity(0, parts.pop())


def last_lines(log: os.PathLike, count: int = 3) -> str:
    """The last lines of a log."""
    return "\n".join(pathlib.Path(log).read_text(errors="replace").splitlines()[-count:])
