"""Worker processes that end with their parent, and commands that are run to completion."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Memory pages of 2 MiB make training steps on a CPU faster. glibc reads this when a process starts."""


def end_with_parent() -> None:
    """Ignores Ctrl-C in a worker, which the parent handles, and ends the worker when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, bool]:
    """Runs a command and lets it handle signals, so that it can save its work.

    SIGTERM is forwarded; the terminal sends Ctrl-C to both processes.

    Returns:
        The exit status, and whether this process received a signal in the meantime.
    """
    received: list[int] = []
    with subprocess.Popen(command, env=environment) as process:

        def handle(number: int, frame: Any) -> None:
            received.append(number)
            if number == signal.SIGTERM:
                process.send_signal(number)

        old_handlers = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            status = process.wait()
        finally:
            for number, handler in old_handlers.items():
                signal.signal(number, handler)
    return status, bool(received)
