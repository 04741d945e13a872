"""Runs the trainings and evaluations of a sweep as processes; skips what is finished, resumes the rest."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from genmask_jax.config import SweepConfig
from genmask_jax.tools.sweep.plan import Run, Training
from genmask_jax.tools.sweep.processes import Processes, divide_cores, last_lines, pin_thread
from genmask_jax.tools.sweep.results import RESULT, STATE, locking, merge, need_same_options, write_result
from genmask_jax.utils.paths import write_text


class Runner:
    """Runs trainings and their evaluations in the directory of a sweep."""

    def __init__(
        self,
        config: SweepConfig,
        workdir: epath.Path,
        command: str,
        start_of: Callable[[str, str], list[str]],
    ):
        """
        Args:
            config: the sweep.
            workdir: its directory.
            command: its command, for the results.
            start_of: what starts a command, such as "train", of a folder of scripts, such as "launch", as the
                start of an argument list.
        """
        self._config, self._workdir, self._command, self._start_of = config, workdir, command, start_of
        self._processes = Processes()
        self.failures: list[str] = []

    @property
    def stopped(self) -> bool:
        """Whether a signal stopped the sweep."""
        return self._processes.stopping

    def run(self, trainings: Sequence[Training], num_processes: int) -> None:
        """Runs all unfinished runs, `num_processes` trainings at a time. Call it in the main thread.

        Raises:
            UserError: a finished run had other options, or there are fewer cores than processes.
        """
        for training in trainings:
            need_same_options(training)
        parts = divide_cores(num_processes)
        pool = ThreadPoolExecutor(num_processes, initializer=pin_thread, initargs=(parts,))
        with self._processes.answering_signals(), pool:
            for _ in pool.map(self._run_training, trainings):
                pass
        merge(self._workdir)

    def _run_training(self, training: Training) -> None:
        """Trains, if that is not finished, and evaluates all runs that are not; nothing after a signal."""
        if self.stopped:
            return
        with locking(training.folder / "lock", wait=False) as lock:
            todo = [run for run in training.runs if not (run.folder / RESULT).exists()]
            if not todo:
                _report(training.runs, "finished before")
            elif lock is None:
                _report(todo, "another process is running this; skipped")
            elif self._train(training, lock):
                for run in todo:
                    self._evaluate(run, training, lock)

    def _train(self, training: Training, lock: int) -> bool:
        """Whether the model is trained at the end."""
        state = _read_state(training)
        if state["finished"]:
            return True
        resume = ["--resume"] if (training.model / "config.json").exists() else []
        begin = time.monotonic()
        start = self._start_of("train", training.scripts)
        arguments = [*start, *training.train_flags(), *resume]
        succeeded = self._run_command(training.runs[0], "train", arguments, training.folder, lock)
        seconds = state["seconds"] + time.monotonic() - begin
        state = {"train": training.runs[0].train, "seconds": round(seconds, 1), "finished": succeeded}
        write_text(training.folder / STATE, json.dumps(state))
        return succeeded

    def _evaluate(self, run: Run, training: Training, lock: int) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        arguments = [*self._start_of("evaluate", training.scripts), *training.evaluate_flags(run)]
        if not self._run_command(run, "evaluate", arguments, run.folder, lock):
            return
        seconds = {
            "train": _read_state(training)["seconds"],
            "evaluate": round(time.monotonic() - begin, 1),
        }
        config = self._config
        write_result(run, training, config.name, self._command, config.metrics, seconds)
        merge(self._workdir)
        _report(
            [run], f"finished, {seconds['train']:.0f} s training and {seconds['evaluate']:.0f} s evaluation"
        )

    def _run_command(self, run: Run, name: str, command: list[str], folder: epath.Path, lock: int) -> bool:
        """Runs a command for a run, with its output in FOLDER/NAME.log; returns whether it succeeded."""
        log = folder / f"{name}.log"
        if self.stopped:
            return False
        _report([run], f"{name}, log: {log}")
        status = self._processes.run(command, log, lock)
        if status:
            self.failures.append(f"{run.name}: {name} failed with status {status}; log: {log}")
            _report([run], f"{name} failed with status {status}; log: {log}\n{last_lines(log)}")
        return status == 0


def _read_state(training: Training) -> dict:
    """Seconds of the training so far, and whether it is finished."""
    path = training.folder / STATE
    return json.loads(path.read_text()) if path.exists() else {"seconds": 0.0, "finished": False}


def _report(runs: Iterable[Run], message: str) -> None:
    print(f"{', '.join(run.name for run in runs)}: {message}", flush=True)
