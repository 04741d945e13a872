"""Progress of a training run: the log, TensorBoard, metrics.jsonl and a progress bar."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from etils import epath
from jax.sharding import Mesh
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genmask_jax.config import TrainConfig, VAETrainConfig
from genmask_jax.hardware.chips import peak_flops
from genmask_jax.hardware.flops import ModelFlops
from genmask_jax.parameters.plan import ParameterPlan
from genmask_jax.parameters.table import format_plan
from genmask_jax.training import noise_levels
from genmask_jax.training.charts import Charts
from genmask_jax.training.optimizer import learning_rate_schedule
from genmask_jax.training.sessions import add_session
from genmask_jax.training.skipping import SKIPPED_FILE, Skips
from genmask_jax.training.state import TrainState
from genmask_jax.utils.errors import StorageError, UserError
from genmask_jax.utils.hosts import is_first
from genmask_jax.utils.paths import Appender, listed, write_text, writing

PLAN_FILE = "parameters.txt"
"""File of a run with the plan of its parameters, written when the run starts."""


def report_plan(plan: ParameterPlan, workdir: epath.Path) -> None:
    """Logs the plan of a run's parameters, and writes it to the directory of a new run."""
    table = format_plan(plan)
    logging.info("parameters:\n%s", table)
    if is_first() and not (workdir / PLAN_FILE).exists():
        write_text(workdir / PLAN_FILE, f"{table}\n")


def need_finite(step: int, metrics: dict[str, float]) -> None:
    """Raises UserError if a metric is infinite or NaN, as the parameters then are, or soon will be."""
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        raise UserError(
            f"step {step}: {bad[0]} is not finite, so this step was not saved. Continue from the last "
            "checkpoint with --resume --change=optimizer.learning_rate and a lower "
            "config.optimizer.learning_rate"
        )


def _drop_unsaved_rows(path: epath.Path, step: int, *, validated: bool) -> None:
    """Drops the rows of steps that a killed run logged but did not save.

    These are the rows after `step`, and those of its validation unless that was completed (`validated`). The
    resumed run logs them again.
    """
    if not path.exists():
        return
    saved = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
            is_score = any(name.startswith("val_") for name in row)
            if row["step"] < step or (row["step"] == step and (validated or not is_score)):
                saved.append(line)
        except (ValueError, KeyError, TypeError):  # a line that was cut off
            continue
    write_text(path, "".join(f"{line}\n" for line in saved))


def _device_memory() -> dict[str, float]:
    """Peak memory of this process's first device; empty where it is not counted (on CPUs)."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return (
        {"peak_device_memory_gib": stats["peak_bytes_in_use"] / 2**30} if "peak_bytes_in_use" in stats else {}
    )


class Reporter:
    """Writes scalars and images. Hosts other than the first only log and check the scalars."""

    def __init__(
        self, workdir: epath.Path, config: TrainConfig | VAETrainConfig, step: int, *, validated: bool
    ):
        """`step`: step of the checkpoint that the run continues from; `validated`: whether it has scores."""
        loop = config.loop
        self.workdir, self.loop, self.first = workdir, loop, is_first()
        self.learning_rate = learning_rate_schedule(config.optimizer, loop)
        if self.first:
            with writing(workdir / "samples"):
                (workdir / "samples").mkdir(parents=True, exist_ok=True)
            _drop_unsaved_rows(workdir / "metrics.jsonl", step, validated=validated)
            _drop_unsaved_rows(workdir / SKIPPED_FILE, step, validated=True)
            add_session(workdir, step)
        self.charts = Charts(workdir if self.first else None, step)
        self._rows = Appender(workdir / "metrics.jsonl")
        # Fits into a terminal of 80 columns.
        losses = TextColumn("{task.fields[losses]}")
        columns = (BarColumn(bar_width=10), MofNCompleteColumn(), TimeRemainingColumn(), losses)
        in_terminal = self.first and sys.stdout.isatty()
        self.progress = Progress(*columns, disable=not in_terminal, refresh_per_second=2)
        self.bar = self.progress.add_task("training", total=loop.num_steps, completed=step, losses="")
        self.logged_step, self.logged_time = step, time.monotonic()
        self.seconds_at_peak: ModelFlops | None = None
        """Duration of a step at the peak FLOP/s of the devices; None if the peak is unknown."""

    def __enter__(self) -> "Reporter":
        self.progress.start()
        # absl keeps its initial stream; while the bar is live, rich's replacement of stderr writes above it.
        self.handler = logging.get_absl_handler().python_handler
        self.stream = self.handler.setStream(sys.stderr)
        return self

    def __exit__(self, *exception: Any) -> None:
        self.progress.stop()
        if self.stream is not None:
            self.handler.setStream(self.stream)
        with contextlib.suppress(*[StorageError] if exception[0] else []):  # keep the first error
            self.flush()

    def flush(self) -> None:
        """Writes all that was logged. Before a checkpoint, since a resumed run does not log it again."""
        self._rows.flush()
        self.charts.flush()

    def count_flops(self, flops: Callable[[Any], ModelFlops], batch: Any, mesh: Mesh) -> None:
        """Counts the model FLOPs of a step once, to log the MFU."""
        peak = peak_flops(mesh.devices.flat[0].device_kind)
        if peak and self.seconds_at_peak is None:
            self.seconds_at_peak = flops(batch) / (peak * mesh.size)

    def step(self, step: int, state: TrainState) -> None:
        """Advances the progress bar. At the end of a logging window, logs its metrics and skipped steps.

        Raises:
            UserError: a metric is not finite.
        """
        self.progress.update(self.bar, completed=step)
        if step % self.loop.log_every_steps == 0 or step == self.loop.num_steps:
            self._log(step, *jax.device_get((state.metrics, state.skips)))

    def _log(self, step: int, metrics: dict[str, Any], skips: Skips) -> None:
        updates = step - int(skips.total)
        learning_rate = float(jnp.asarray(self.learning_rate(max(updates - 1, 0))))
        any_update = skips.in_window <= (step - 1) % self.loop.log_every_steps
        scalars = {name: float(value) for name, value in metrics.items()} if any_update else {}
        need_finite(step, scalars)
        scalars |= {"skipped_steps": float(skips.total)} if skips.total else {}
        scalars, by_noise = noise_levels.split(scalars)
        seconds = (time.monotonic() - self.logged_time) / max(1, step - self.logged_step)
        self.logged_step, self.logged_time = step, time.monotonic()
        self._append({"step": step, **scalars, **by_noise, "learning_rate": learning_rate})
        remaining = seconds * (self.loop.num_steps - step)
        speed: dict[str, Any] = {
            "steps_per_second": 1 / seconds,
            "examples_per_second": self.loop.global_batch_size / seconds,
            "minutes_left": remaining / 60,
        }
        if self.seconds_at_peak:
            share = self.seconds_at_peak / seconds
            assert share.trained is not None  # it is a training step
            speed |= {"mfu": share.trained, "mfu_all_networks": share.every}
        charted = scalars | speed | {"learning_rate": learning_rate, **_device_memory()}
        logging.info("[%d] %s", step, ", ".join(f"{name}={value:.6g}" for name, value in charted.items()))
        self.charts.scalars(step, charted | by_noise)
        parts = {name.removeprefix("loss_"): value for name, value in scalars.items() if "loss_" in name}
        losses = " ".join(f"{name} {value:.4f}" for name, value in parts.items())
        self.progress.update(self.bar, losses=f"{losses} {speed['examples_per_second']:.0f} examples/s")

    def log_scores(self, step: int, scores: dict[str, float], seconds: float) -> None:
        """Logs validation scores, and the contact sheets of this step in `samples/`."""
        self._append({"step": step, **{f"val_{name}": value for name, value in scores.items()}})
        overall = {name: value for name, value in scores.items() if "/" not in name}
        groups = {f"val_{name}": value for name, value in scores.items() if "/" in name}
        self.charts.scalars(step, {f"val/{name}": value for name, value in overall.items()} | groups)
        self.logged_time += seconds  # validation is not training time
        if self.first:
            self._write_sheets(step)
        self.flush()
        logging.info("step %d: validation %s in %.1f s", step, overall, seconds)

    def _write_sheets(self, step: int) -> None:
        for path in listed(self.workdir / "samples", f"_{step:06d}.png"):
            self.charts.image(step, path.name.rsplit("_", 1)[0], path.read_bytes())

    def _append(self, row: dict[str, Any]) -> None:
        if self.first:
            self._rows.append(f"{json.dumps(row)}\n".encode())
