"""Kills a command at random moments, runs it again, and compares the result with that of an undisturbed run.

    python tests/faults/kills.py train --kills=1000 --workdir=runs/kills
    python tests/faults/kills.py encode_latents --kills=50 --workdir=runs/kills
    python tests/faults/kills.py train --kills=50 --signal=TERM --workdir=runs/kills

Half of the kills come at a random time after the start, the others up to 30 ms after a random file or
folder appeared, such as the temporary folder of a checkpoint. After one to six kills a command runs to its
end, is compared, and starts again in an empty folder. At each start, train changes its number of workers at
random, train_meshes its mesh, devices and processes, and train_processes continues on two processes or on
one with two devices. Of two processes, both are killed, or one, and the other must end by itself. SIGTERM
goes to all processes of a command, as schedulers send it; the longest times until a line answers it, and
until the command has ended, are printed. Processes are forked from one that has imported everything, but
has no JAX devices yet. Prints counts.
"""

import argparse
import collections
import contextlib
import importlib
import os
import pathlib
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from kill_targets import TARGETS, Target, Variation, make_inputs

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

MAX_SECONDS_TO_END = 240
"""JAX's coordination service notices a lost process after 100 s."""
MAX_SECONDS_TO_COMPILE = 1800
MAX_KILLS = 6
"""Most kills of one run, which then continues to its end."""
FSDP_MIN_SIZE = 64
"""Shards even the smallest parameters."""


class Job:
    """The processes of one start of a command."""

    def __init__(
        self, target: Target, how: Variation, inputs: pathlib.Path, out: pathlib.Path, log: pathlib.Path
    ):
        flags = [flag.format(inputs=inputs, out=out) for flag in (*target.flags, *how.flags)]
        self.running, self.statuses = set(), []
        port = free_port() if how.processes > 1 else 0
        for i in range(how.processes):
            distributed = [f"--coordinator=localhost:{port}", f"--num_processes={how.processes}"]
            distributed = [*distributed, f"--process_id={i}"] if how.processes > 1 else []
            self.running.add(start(target.command, [*flags, *distributed], how.devices, log))

    def ended(self) -> bool:
        """Whether all processes have ended; adds the statuses of those that ended since the last call."""
        for process in list(self.running):
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                self.running.discard(process)
                self.statuses.append(os.waitstatus_to_exitcode(status))
        return not self.running

    def wait(self, seconds: float = MAX_SECONDS_TO_END) -> float:
        """Waits until all have ended, at most `seconds`; returns how long that took."""
        began = time.monotonic()
        while not self.ended():
            assert time.monotonic() - began < seconds, "a process does not end"
            time.sleep(0.005)
        return time.monotonic() - began

    def kill(self, rng: random.Random) -> float:
        """Kills all processes and their children, or one of several; returns how long the others went on."""
        victims = sorted(self.running)
        if len(victims) > 1 and rng.random() < 0.3:
            victims = [rng.choice(victims)]
        for process in [child for victim in victims for child in (victim, *descendants(victim))]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return self.wait()

    def terminate(self, log: pathlib.Path) -> tuple[float, float]:
        """Sends SIGTERM to all; returns the seconds until a line answers it, and until they have ended."""
        written, began, answered = log.stat().st_size, time.monotonic(), None
        for process in self.running:
            os.killpg(process, signal.SIGTERM)
        while True:
            has_ended = self.ended()
            seconds = time.monotonic() - began
            if answered is None and (has_ended or b"SIGTERM" in log.read_bytes()[written:]):
                answered = seconds
            if has_ended:
                return answered or seconds, seconds
            assert seconds < MAX_SECONDS_TO_END, f"a process does not end; see {log}"
            time.sleep(0.005)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def descendants(process: int) -> list[int]:
    """The children of a process, and theirs."""
    try:
        threads = list(pathlib.Path(f"/proc/{process}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:  # it ended
        return []
    return [found for child in children for found in (child, *descendants(child))]


def start(command: str, flags: list[str], devices: int, log: pathlib.Path) -> int:
    """Forks a process that runs a command; returns its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setsid()
        with open(log, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if devices > 1:
            from genmask_jax import cli

            many = f"--xla_force_host_platform_device_count={devices}"
            os.environ["XLA_FLAGS"] = " ".join([*cli.cpu_flags(), many])
        sys.argv = [str(ROOT / "launch" / f"{command}.py"), *flags]
        module = importlib.import_module(f"genmask_jax.commands.{command}")
        getattr(module, "start", module.main)()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def in_child(function: Callable[..., None], *arguments: Any) -> str:
    """Calls a function in a forked process; returns its error, or ""."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            function(*arguments)
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode()[:4000])
        os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        said = answer.read().decode()
    os.waitpid(child, 0)
    return said


def entries(folder: pathlib.Path) -> Iterator[str]:
    """All files and folders below a folder, which changes meanwhile."""
    for parent, folders, files in os.walk(folder):
        yield from (os.path.relpath(os.path.join(parent, name), folder) for name in (*folders, *files))


def wait_for_some_moment(job: Job, out: pathlib.Path, seconds: float, rng: random.Random) -> str:
    """Waits for a random time, or until something appears in `out`; returns what, or "at random".

    Returns earlier if the job ends.
    """
    deadline, targeted = time.monotonic() + rng.uniform(0, seconds), rng.random() < 0.5
    wanted, seen = rng.randint(1, 12), set(entries(out))
    while not job.ended():
        if targeted:
            new = set(entries(out)) - seen
            seen |= new
            wanted -= bool(new)
            if new and wanted <= 0:
                time.sleep(rng.uniform(0, 0.03))
                return sorted(new)[0]
            time.sleep(0.001)
        elif time.monotonic() > deadline:
            break
        else:
            time.sleep(0.01)
    return "at random"


def import_everything() -> None:
    """Imports what the commands import, keeps vocabularies small as in the tests, and shards small arrays."""
    import grain.python
    import orbax.checkpoint
    import tensorboard.summary.writer.event_file_writer
    import tokenizers

    import genmask_jax.public_weights.wan
    import genmask_jax.tools.report
    import genmask_jax.training.start
    import tests.conftest
    from genmask_jax.parameters import rules

    assert all((grain, orbax, tensorboard, tokenizers, genmask_jax, tests))
    rules.FSDP_MIN_SIZE = FSDP_MIN_SIZE
    os.environ["PYTHONPATH"] = str(ROOT)  # for the configs, in processes that are not forked


def prepare(name: str, folder: pathlib.Path, log: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path, float]:
    """Makes the inputs, and runs a target undisturbed; returns both folders, and the seconds of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs, expected, target = folder / "inputs", folder / f"undisturbed_{name}", TARGETS[name]
    if not (inputs / "micro.py").exists():
        shutil.rmtree(inputs, ignore_errors=True)
        problem = in_child(make_inputs, inputs)
        assert not problem, problem
    # The last has compiled programs; the other variations compile theirs.
    for how in (*target.variations[:0:-1], target.variations[0], target.variations[0]):
        shutil.rmtree(expected, ignore_errors=True)
        began, job = time.monotonic(), Job(target, how, inputs, expected, log)
        job.wait(MAX_SECONDS_TO_COMPILE)
        assert not any(job.statuses), f"the undisturbed run failed; see {log}"
    return inputs, expected, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=TARGETS)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    import_everything()

    folder, target, rng = arguments.workdir.resolve(), TARGETS[arguments.name], random.Random(arguments.seed)
    out, log = folder / f"out_{arguments.name}", folder / f"log_{arguments.name}.txt"
    inputs, expected, seconds = prepare(arguments.name, folder, log)
    print(f"an undisturbed run takes {seconds:.1f} s", flush=True)
    shutil.rmtree(out, ignore_errors=True)
    counts, finished, began, times, alone = collections.Counter(), 0, time.monotonic(), [], []
    while sum(counts.values()) < arguments.kills:
        for _ in range(rng.randint(1, MAX_KILLS)):
            job = Job(target, rng.choice(target.variations), inputs, out, log)
            moment = wait_for_some_moment(job, out, seconds, rng)
            if job.ended():
                break
            if arguments.signal == "TERM":
                times.append(job.terminate(log))
            else:
                alone.append(job.kill(rng))
            counts["at random" if moment == "at random" else "at a file"] += 1
        else:
            job = Job(target, rng.choice(target.variations), inputs, out, log)
            job.wait()
        killed = sum(counts.values())
        refused = target.refusal and target.refusal in log.read_text().splitlines()[-1]
        assert refused or not any(job.statuses), f"after {killed} kills: {job.statuses}; see {log} and {out}"
        problem = in_child(target.same, out, expected)
        assert not problem, f"after {killed} kills: {problem}; see {out} and {expected}"
        finished += 1
        print(f"{killed} kills, {finished} runs equal", flush=True)
        shutil.rmtree(out)
        log.unlink()
    minutes = (time.monotonic() - began) / 60
    print(f"{arguments.name}: {sum(counts.values())} kills ({dict(counts)}) in {minutes:.1f} min")
    if times:
        answered, gone = (max(column) for column in zip(*times, strict=True))
        print(f"at most {answered:.2f} s until a line or the end, and {gone:.1f} s until the end")
    if alone:
        print(f"at most {max(alone):.1f} s until the processes that were not killed had ended")
    print(f"{finished} runs were killed, continued until they ended, and all equal an undisturbed one")


if __name__ == "__main__":
    main()
