"""What answers a signal, and when."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

PROGRAM = """
    import hashlib, sys
    from genmask_jax.training.stopping import StopRequests
    with StopRequests("stopped before a step was made") as stop:
        if sys.argv[1] == "training":
            stop.expect("stopping after this step")
        print("ready", flush=True)
        # As when a program is compiled: no Python runs in the main thread.
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


@pytest.fixture
def begin():
    """Starts a process that is busy in C, where nothing can be lost or in training."""
    started = []

    def make(where):
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), where]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "ready\n"
        return started[-1]

    yield make
    for process in started:
        process.kill()
        process.communicate()


def test_a_signal_ends_a_process_that_has_nothing_to_lose(begin):
    process = begin("start")
    process.send_signal(signal.SIGINT)
    assert "Ctrl-C: stopped before a step was made" in process.stderr.readline()
    assert process.wait(timeout=10) == 1


def test_a_signal_is_answered_within_a_second_and_the_next_one_ends_the_process(begin):
    process = begin("training")
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    line = process.stderr.readline()
    assert time.monotonic() - sent < 1
    assert "SIGTERM: stopping after this step (repeat to stop at once, without it)" in line
    process.send_signal(signal.SIGTERM)  # a launcher's copy of the same request
    time.sleep(1.1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert "SIGTERM again: ended" in process.stderr.readline()
    assert process.wait(timeout=5) == 128 + signal.SIGTERM
