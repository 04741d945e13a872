"""Stopping a run: what SIGTERM (preemption) and SIGINT (Ctrl-C) do.

Python calls signal handlers between two of its own instructions, so not while code in C runs. A thread
therefore answers signals, as soon as they arrive.
"""

import os
import signal
import threading
import time
from typing import Any

import jax
from absl import logging

from genmask_jax.utils import hosts
from genmask_jax.utils.errors import Stopped

SIGNALS: dict[int, str] = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
TOGETHER = 1.0
"""Seconds within which signals are one request: a terminal and a launcher may both pass on a Ctrl-C."""
GRACE = 2.0
"""Seconds for Python to end the process by itself, where it is to end at once."""


class StopRequests:
    """Answers SIGTERM and SIGINT with a line while it is entered, if that is in the main thread.

    The first one is a request. It ends the process at once where nothing can be lost; elsewhere, `reached` is
    true from then on. A second one ends the process at once anywhere. With several hosts, a request to one of
    them stops all, together.
    """

    def __init__(self, meaning: str):
        """A request ends the process at once, until `expect` is called; `meaning`: what the line says."""
        self._meaning, self._at_once = meaning, True
        self._requested, self._raised = False, False
        self._lock, self._left = threading.RLock(), threading.Event()

    def expect(self, meaning: str, *, at_once: bool = False) -> None:
        """Sets what the line says from now on, and whether a request ends the process at once."""
        with self._lock:
            if not self._requested:
                self._meaning, self._at_once = meaning, at_once

    def reached(self) -> bool:
        """Whether to stop now. All hosts must ask equally often, and get the same answer."""
        return self._requested if jax.process_count() == 1 else hosts.reached_stop()

    def __enter__(self) -> "StopRequests":
        self._answers = threading.current_thread() is threading.main_thread()  # others get no signals
        if self._answers:
            self._notify = hosts.preemption_notice() if jax.process_count() > 1 else None
            self._read, self._write = os.pipe()
            os.set_blocking(self._write, False)
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
            self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            self._thread = threading.Thread(target=self._listen, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._left.set()
        if self._answers:
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            os.close(self._write)
            self._thread.join()
            os.close(self._read)

    def _ends(self) -> bool:
        """Notes a request; whether the process is to end at once, which the first call decides."""
        with self._lock:
            self._requested = True
            return self._at_once and self._notify is None

    def _handle(self, *signal_and_frame: Any) -> None:
        """In the main thread, when Python gets there."""
        if self._ends() and not self._raised:
            self._raised = True
            raise Stopped(1)

    def _listen(self) -> None:
        """In a thread: reads the number of every signal as it arrives, until the pipe is closed."""
        began: float | None = None
        while numbers := os.read(self._read, 64):
            number = next((number for number in numbers if number in SIGNALS), None)
            if number is None:  # a signal that others handle
                continue
            if began is None:
                began = time.monotonic()
                self._answer(SIGNALS[number])
            elif time.monotonic() - began >= TOGETHER:
                name = SIGNALS[number]
                logging.warning(
                    "%s again: ended; the same command with --resume goes on from the last checkpoint", name
                )
                os._exit(128 + number)

    def _answer(self, name: str) -> None:
        if self._ends():
            logging.warning("%s: %s", name, self._meaning)
            if not self._left.wait(GRACE):
                os._exit(1)
        elif self._at_once:
            logging.warning("%s: the hosts stop together, at their next step if there is one", name)
        else:
            logging.warning("%s: %s (once more: at once, without it)", name, self._meaning)
        if self._notify is not None:
            self._notify()
