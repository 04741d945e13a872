"""Results of a sweep: one file per finished run, merged into results.jsonl."""

import contextlib
import datetime
import fcntl
import json
import shlex
from collections.abc import Iterator
from typing import Any

from etils import epath

from genmask_jax.tools.sweep.plan import Run, Training
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import listed, write_text

RESULT, RESULTS = "result.json", "results.jsonl"
STATE = "training.json"
"""File of a training: its fields, the seconds so far, and whether it is finished."""


@contextlib.contextmanager
def locking(path: epath.Path, *, wait: bool) -> Iterator[int | None]:
    """Holds a lock on a file, and yields its descriptor; None if another process has it and not `wait`.

    A process to which the descriptor is passed holds the lock as well, until it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        yield file.fileno()


def write_result(
    run: Run,
    training: Training,
    sweep: str,
    command: str,
    metrics: tuple[str, ...],
    seconds: dict[str, float],
) -> None:
    """Writes the result of a run, from the files of its training and evaluation.

    Args:
        run: the finished run.
        training: its training.
        sweep: name of the sweep.
        command: the sweep's command, without --workdir.
        metrics: dotted names of the scores to keep; missing ones become null.
        seconds: time of the training and of the evaluation.
    """
    scores = json.loads((run.folder / "evaluation" / "metrics.json").read_text())
    session = json.loads((training.model / "sessions.jsonl").read_text().splitlines()[-1])
    line = {
        "sweep": sweep,
        "variant": run.variant,
        "seed": run.seed,
        "scores": {name: find_metric(scores, name) for name in metrics},
        "train": run.train,
        "evaluate": run.evaluate,
        "command": command,
        "commands": [
            shlex.join(["python", f"{training.scripts}/train.py", *training.train_flags()]),
            shlex.join(["python", f"{training.scripts}/evaluate.py", *training.evaluate_flags(run)]),
        ],
        "version": session["versions"]["genmask-jax"],
        "processor": session["processor"],
        "cores": session["cores"],
        "seconds": seconds,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_text(run.folder / RESULT, json.dumps(line) + "\n")


def find_metric(scores: Any, name: str) -> float | None:
    """A score by its dotted name; None if there is none. Keys may have dots themselves, such as "P@0.5"."""
    if not isinstance(scores, dict):
        return None
    if isinstance(scores.get(name), (int, float)):
        return scores[name]
    heads = (key for key in scores if name.startswith(f"{key}."))
    return next((find_metric(scores[key], name[len(key) + 1 :]) for key in heads), None)


def need_same_options(training: Training) -> None:
    """Raises UserError if files of a training or of its runs are from other fields or flags."""
    _need_same(training.folder / STATE, {"train": training.runs[0].train})
    for run in training.runs:
        _need_same(run.folder / RESULT, {"train": run.train, "evaluate": run.evaluate})


def _need_same(path: epath.Path, options: dict[str, dict[str, object]]) -> None:
    """Raises UserError if a JSON file exists and has other options."""
    saved = json.loads(path.read_text()) if path.exists() else options
    for group, new in options.items():
        old = saved[group]
        for name in {**old, **new}:
            if old.get(name) != new.get(name):
                raise UserError(
                    f"{path}: this run had {group} {name} = {old.get(name)!r}, not {new.get(name)!r}; "
                    "give the same options, or another --workdir"
                )


def merge(workdir: epath.Path) -> None:
    """Writes results.jsonl: a line for every finished run in the directory, also of other jobs."""
    with locking(workdir / "results.lock", wait=True):
        paths = [folder / RESULT for folder in listed(workdir / "runs")]
        write_text(workdir / RESULTS, "".join(path.read_text() for path in paths if path.exists()))


def read_lines(path: epath.Path) -> list[dict[str, Any]]:
    """The lines of a file of results.

    Raises:
        UserError: the file does not exist or has a line that is not JSON.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file; run the sweep without --only_report first")
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise UserError(f"{path}: line {number} is not valid JSON ({error})") from error
    return lines
