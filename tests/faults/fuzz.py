"""Reads damaged inputs until one does what it must not do.

    python tests/faults/fuzz.py all --inputs=1000000 --seed=0
    python tests/faults/fuzz.py yolo --inputs=1000 --seed=0 --first=417

Each input must be read, or be refused with a UserError of one line. A finding is another exception, more than
MAX_SECONDS for one input, or more than MAX_MEMORY. Findings are printed with what reproduces them; the exit
status is 1 if there is one. `all` runs each target in a process of its own, with its part of the inputs
(SHARES).
"""

import argparse
import collections
import dataclasses
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from genmask_jax.utils.errors import UserError
from tests.faults.targets import Target, all_targets

MAX_SECONDS = 10
"""Seconds of CPU time for an input."""
TIMERS = {signal.ITIMER_PROF: MAX_SECONDS, signal.ITIMER_REAL: 6 * MAX_SECONDS}
"""Limits of CPU time and, for what waits, of time."""
MAX_MEMORY = 2 * 2**30
"""Bytes that a process may take in addition to what it had when it started to read inputs."""
MAX_MESSAGE = 3000
"""Largest number of characters of a UserError."""
SHARES = {
    **{"images": 30, "segmentations": 25, "class_lists": 12, "safetensors": 12, "label_files": 5},
    **{
        "predictions": 4,
        "run_configs": 2.5,
        "coco": 1,
        "labelme": 1,
        "reasonseg": 1,
        "refcoco": 2,
        "yolo": 1,
    },
    **{
        "refcoco": 2,
        "coco_tree": 0.5,
        "metadata": 0.5,
        "metadata_csv": 0.5,
        "masks": 0.5,
        "packed_models": 0.5,
    },
    **{"class_maps": 0.2, "any_layout": 0.1, "config_fields": 0.4, "requests": 0.3},
}
"""Percent of the inputs of `all`, larger where one takes less time."""


class TooSlow(BaseException):
    """An input took more than MAX_SECONDS."""


@dataclasses.dataclass
class Counts:
    """What happened to the inputs of a target; findings are (number of the input, description)."""

    read: int = 0
    refused: int = 0
    findings: list[tuple[int, str]] = dataclasses.field(default_factory=list)


def try_inputs(name: str, target: Target, inputs: range, seed: int) -> Counts:
    """Reads the inputs of a target."""
    counts = Counts()
    for number in inputs:
        made = target.make(random.Random(f"{seed} {name} {number}"))
        finding = _finding(target, made, counts)
        if finding:
            counts.findings.append((number, f"{finding}\n    input: {_shown(made)}"))
    return counts


def _finding(target: Target, made: Any, counts: Counts) -> str:
    """What is wrong with reading an input; "" if nothing is."""
    start = time.process_time()
    try:
        for timer, limit in TIMERS.items():
            signal.setitimer(timer, limit)
        try:
            target.read(made)
        finally:
            for timer in TIMERS:
                signal.setitimer(timer, 0)
        counts.read += 1
    except UserError as error:
        counts.refused += 1
        message = str(error)
        if "\n" in message or not message.strip() or len(message) > MAX_MESSAGE:
            return f"a message that is not one line: {message[:200]!r} of {len(message)} characters"
    except TooSlow:
        return f"more than {MAX_SECONDS} s"
    except BaseException as error:  # such as a panic in Rust
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "genmask_jax/" in f.filename]
        where = " < ".join(f"{pathlib.Path(f.filename).name}:{f.lineno}" for f in frames[::-1][:4])
        return f"{type(error).__name__} at {where}: {str(error)[:300]!r}"
    seconds = time.process_time() - start
    return f"{seconds:.1f} s" if seconds > MAX_SECONDS else ""


def _shown(made: Any) -> str:
    text = repr(made)
    return text if len(text) < 300 else f"{text[:300]}... ({len(text)} characters)"


def limit_memory() -> None:
    """Limits the memory of this process to MAX_MEMORY more than it has."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MAX_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def catch_alarms() -> None:
    """Makes the alarms of TIMERS raise TooSlow."""

    def raise_too_slow(*_: Any) -> None:
        raise TooSlow

    for alarm in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(alarm, raise_too_slow)


def run_target(name: str, inputs: range, seed: int) -> bool:
    """Reads the inputs of a target and prints what happened; returns whether nothing was found."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None) as root:
        target = all_targets(pathlib.Path(root))[name]()
        warnings.simplefilter("ignore")
        catch_alarms()
        limit_memory()
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        counts = try_inputs(name, target, inputs, seed)
        seconds = time.monotonic() - start
        growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    kinds = collections.Counter(text.partition(": ")[0] for _, text in counts.findings)
    for kind, count in kinds.most_common():
        number, text = next((n, t) for n, t in counts.findings if t.startswith(kind))
        print(f"{name}: {count} x {text}\n    --first={number}")
    print(
        f"{name}: {len(inputs):,} inputs, {counts.read:,} read, {counts.refused:,} refused, "
        f"{len(counts.findings):,} findings, {seconds:.0f} s, {growth:.0f} MiB more",
        flush=True,
    )
    return not counts.findings


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(all_targets(pathlib.Path()))
    parser.add_argument("target", choices=["all", *names])
    parser.add_argument("--inputs", type=int, default=10_000, help="number of inputs (default: 10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    arguments = parser.parse_args()
    if arguments.target != "all":
        inputs = range(arguments.first, arguments.first + arguments.inputs)
        sys.exit(not run_target(arguments.target, inputs, arguments.seed))
    failed = [name for name in names if not _run_apart(name, arguments)]
    print(f"findings in {', '.join(failed)}" if failed else "no findings")
    sys.exit(bool(failed))


def _run_apart(name: str, arguments: argparse.Namespace) -> bool:
    options = [f"--inputs={round(arguments.inputs * SHARES[name] / 100)}", f"--seed={arguments.seed}"]
    return subprocess.run([sys.executable, __file__, name, *options]).returncode == 0


if __name__ == "__main__":
    main()
