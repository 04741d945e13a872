"""Trains a micro model for many steps, and prints its memory, threads, files and time per step.

    python tests/faults/long_run.py --steps=50000 --workdir=runs/long

A checkpoint is written every 500 steps, and validation runs every 2,500. A hundred times, the memory,
threads and open files of the training and its two data workers are read from /proc (Linux), and the files
in its folder are counted. Prints the mean of each tenth of the run, in which a leak would show, and writes
all values to WORKDIR/samples.jsonl.
"""

import argparse
import json
import pathlib
import shutil
import sys
import time

from kill_targets import Target, Variation, make_inputs
from kills import Job, descendants, import_everything, in_child

FIELDS = {
    "loop.eval_every_steps": 2500, "loop.checkpoint_every_steps": 500,
    "model.depth": 1, "data.num_workers": 2,
}  # fmt: skip
COLUMNS = ("step", "MB", "threads", "open files", "files", "ms a step")
TENTHS = 10


def sample(job: Job, workdir: pathlib.Path) -> dict[str, float]:
    """Memory (proportional share) in MB, threads and open files of all processes, and files in the folder."""
    totals = {"MB": 0.0, "threads": 0, "open files": 0, "files": sum(1 for _ in workdir.rglob("*"))}
    for process in [p for first in job.running for p in (first, *descendants(first))]:
        folder = pathlib.Path(f"/proc/{process}")
        memory = [line for line in (folder / "smaps_rollup").read_text().splitlines() if line[:4] == "Pss:"]
        totals["MB"] += int(memory[0].split()[1]) / 1024
        totals["threads"] += sum(1 for _ in (folder / "task").iterdir())
        totals["open files"] += sum(1 for _ in (folder / "fd").iterdir())
    return totals


def last_step(metrics: pathlib.Path) -> int:
    """The last step in metrics.jsonl; 0 if there is none."""
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def watch(job: Job, workdir: pathlib.Path, every: int) -> list[dict[str, float]]:
    """Samples the job once in `every` steps, until it ends."""
    samples, began = [], time.monotonic()
    while not job.ended():
        step, before = last_step(workdir / "metrics.jsonl"), samples[-1]["step"] if samples else 0
        if step >= before + every:
            now = time.monotonic()
            speed = {"step": step, "ms a step": 1000 * (now - began) / (step - before)}
            samples.append(sample(job, workdir) | speed)
            began = now
        time.sleep(0.2)
    return samples


def print_tenths(samples: list[dict[str, float]]) -> None:
    size = len(samples) / TENTHS
    print("".join(f"{column:>12}" for column in COLUMNS))
    for i in range(TENTHS):
        part = samples[round(i * size) : round((i + 1) * size)]
        means = [sum(one[column] for one in part) / len(part) for column in COLUMNS[1:]]
        print(f"{part[-1]['step']:>12,}" + "".join(f"{x:>12.1f}" for x in means))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    import_everything()
    folder, every = arguments.workdir.resolve(), max(arguments.steps // 100, 1)
    inputs, out, log = folder / "inputs", folder / "out", folder / "log.txt"
    shutil.rmtree(folder, ignore_errors=True)
    problem = in_child(make_inputs, inputs)
    assert not problem, problem
    fields = FIELDS | {"loop.num_steps": arguments.steps, "loop.log_every_steps": every}
    flags = (
        "--config={inputs}/micro.py",
        "--workdir={out}",
        *(f"--config.{k}={v}" for k, v in fields.items()),
    )
    job = Job(Target("train", flags, print), Variation(), inputs, out, log)
    samples = watch(job, out, every)
    if any(job.statuses):
        sys.exit(f"the training ended with {job.statuses}; see {log}")
    (folder / "samples.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in samples))
    print_tenths(samples)


if __name__ == "__main__":
    main()
