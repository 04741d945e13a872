"""Stopping a run on SIGTERM (preemption) or SIGINT (Ctrl-C).

Python runs signal handlers between two of its own instructions, and therefore not while C code runs. A thread
answers signals as soon as they arrive.
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
REPEAT_SECONDS = 1.0
"""Signals within this time count as one: a terminal and a launcher may both forward a Ctrl-C."""
EXIT_SECONDS = 2.0
"""Time for Python to exit by itself after a request that ends the process at once."""


class StopRequests:
    """A context that answers SIGTERM and SIGINT with a line, in the main thread.

    The first signal is a request: it ends the process at once where nothing can be lost; elsewhere,
    `requested` returns True from then on. A second signal always ends the process at once. With several
    hosts, a request to one of them stops all of them at the same step.
    """

    def __init__(self, message: str):
        """`message`: the line for a request. Until `expect` is called, a request ends the process at once."""
        self._message, self._at_once = message, True
        self._requested, self._raised = False, False
        self._lock, self._left = threading.RLock(), threading.Event()

    def expect(self, message: str, *, at_once: bool = False) -> None:
        """Sets the line for later requests, and whether a request ends the process at once."""
        with self._lock:
            if not self._requested:
                self._message, self._at_once = message, at_once

    def requested(self) -> bool:
        """Whether to stop now: the same answer on all hosts, which must call this equally often."""
        return self._requested if jax.process_count() == 1 else hosts.reached_stop()

    def __enter__(self) -> "StopRequests":
        self._answers = (
            threading.current_thread() is threading.main_thread()
        )  # other threads receive no signals
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
        """Records a request; returns whether the process ends at once."""
        with self._lock:
            self._requested = True
            return self._at_once and self._notify is None

    def _handle(self, *signal_and_frame: Any) -> None:
        """Python's signal handler, in the main thread."""
        if self._ends() and not self._raised:
            self._raised = True
            raise Stopped(1)

    def _listen(self) -> None:
        """The thread: reads the number of each signal as it arrives, until the pipe is closed."""
        first_signal: float | None = None
        while numbers := os.read(self._read, 64):
            number = next((number for number in numbers if number in SIGNALS), None)
            if number is None:  # a signal with another handler
                continue
            if first_signal is None:
                first_signal = time.monotonic()
                self._answer(SIGNALS[number])
            elif time.monotonic() - first_signal >= REPEAT_SECONDS:
                name = SIGNALS[number]
                logging.warning(
                    "%s again: ended; the same command with --resume continues from the last checkpoint", name
                )
                os._exit(128 + number)

    def _answer(self, name: str) -> None:
        if self._ends():
            logging.warning("%s: %s", name, self._message)
            if not self._left.wait(EXIT_SECONDS):
                os._exit(1)
        elif self._at_once:
            logging.warning("%s: all hosts stop at their next step", name)
        else:
            logging.warning("%s: %s (repeat to stop at once, without it)", name, self._message)
        if self._notify is not None:
            self._notify()
