"""Other processes: workers, which end with the process that started them, and commands that it waits for."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any


def end_with_parent() -> None:
    """Leaves Ctrl-C, which reaches all processes of a terminal, to the parent; ends when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, bool]:
    """Runs a command, which answers signals itself: it may have work to save.

    SIGTERM is passed on to it; Ctrl-C reaches all processes of a terminal.

    Returns:
        Its exit status, and whether this process has received a signal meanwhile.
    """
    received: list[int] = []
    with subprocess.Popen(command, env=environment) as process:

        def handle(number: int, frame: Any) -> None:
            received.append(number)
            if number == signal.SIGTERM:
                process.send_signal(number)

        before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            status = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return status, bool(received)
