"""Processes that are waited for."""

import os
import signal
import sys
import textwrap

import pytest

from genmask_jax.utils.workers import run_command

SAVES = """
    import os, signal, sys, time
    def save(number, frame):
        time.sleep(0.5)  # longer than subprocess.run gives a process after a Ctrl-C
        print("saved")
        sys.exit(3)
    signal.signal(signal.SIGTERM, save)
    signal.signal(signal.SIGINT, save)
    for number in map(int, sys.argv[1:]):
        os.kill(os.getppid(), number)
        if number == signal.SIGINT:  # a terminal signals both
            os.kill(os.getpid(), number)
    time.sleep(20)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_ends_in_order_when_both_are_stopped(number, capfd):
    before = signal.getsignal(number)
    command = [sys.executable, "-c", textwrap.dedent(SAVES), str(int(number))]
    assert run_command(command, os.environ) == (3, True)
    assert capfd.readouterr().out == "saved\n"
    assert signal.getsignal(number) is before


def test_a_command_that_fails_by_itself_was_not_stopped():
    assert run_command([sys.executable, "-c", "raise SystemExit(2)"], os.environ) == (2, False)
