"""Progress of a training run: the log, TensorBoard, metrics.jsonl and a progress bar."""

import json
import math
import sys
import time
from typing import Any

import jax
from absl import logging
from etils import epath
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genmask_jax.config import LoopConfig
from genmask_jax.hardware.flops import ModelFlops
from genmask_jax.parameters.plan import ParameterPlan
from genmask_jax.parameters.table import format_plan
from genmask_jax.training import noise_levels
from genmask_jax.training.charts import Charts
from genmask_jax.training.sessions import add_session
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.hosts import is_first
from genmask_jax.utils.paths import listed, write_text

PLAN = "parameters.txt"
"""In a run's directory: the plan of its parameters, as it was when the run began."""


def report_plan(plan: ParameterPlan, workdir: epath.Path) -> None:
    """Logs the plan of a run's parameters, and writes it to the directory of a new run."""
    table = format_plan(plan)
    logging.info("parameters:\n%s", table)
    if is_first() and not (workdir / PLAN).exists():
        write_text(workdir / PLAN, f"{table}\n")


def need_finite(step: int, metrics: dict[str, float]) -> None:
    """Raises UserError if a metric is infinite or NaN, and with it, or soon, the parameters are."""
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        raise UserError(
            f"step {step}: {bad[0]} is not finite, so it was not saved; go on from the last checkpoint with "
            "--resume --change=optimizer.learning_rate and a lower config.optimizer.learning_rate"
        )


def _forget_after(path: epath.Path, step: int, *, validated: bool) -> None:
    """Drops rows of what a killed run logged and did not save; the run logs it again.

    They are of later steps, and of this step's validation if that was not `validated` to the end.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
            again = row["step"] == step and not validated and any(name.startswith("val_") for name in row)
            if row["step"] <= step and not again:
                kept.append(line)
        except (ValueError, KeyError, TypeError):  # half a line, as it was killed
            continue
    write_text(path, "".join(f"{line}\n" for line in kept))


def _device_memory() -> dict[str, float]:
    """The peak of this process's first device, where it keeps count (a CPU does not)."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return (
        {"peak_device_memory_gib": stats["peak_bytes_in_use"] / 2**30} if "peak_bytes_in_use" in stats else {}
    )


class Reporter:
    """Writes scalars and images. Hosts other than the first only log and check the scalars.

    seconds_at_peak: of a step, if the devices did nothing but its model FLOPs at their peak; gives the two
        MFUs. None where the peak is not known.
    """

    def __init__(self, workdir: epath.Path, loop: LoopConfig, step: int, *, validated: bool):
        """`step`: that of the checkpoint that the run goes on from; `validated`: whether that has scores."""
        self.workdir, self.loop, self.first = workdir, loop, is_first()
        if self.first:
            (workdir / "samples").mkdir(parents=True, exist_ok=True)
            _forget_after(workdir / "metrics.jsonl", step, validated=validated)
            add_session(workdir, step)
        self.charts = Charts(workdir if self.first else None)
        # Fits into a terminal of 80 columns.
        losses = TextColumn("{task.fields[losses]}")
        columns = (BarColumn(bar_width=10), MofNCompleteColumn(), TimeRemainingColumn(), losses)
        shown = self.first and sys.stdout.isatty()
        self.progress = Progress(*columns, disable=not shown, refresh_per_second=2)
        self.bar = self.progress.add_task("training", total=loop.num_steps, completed=step, losses="")
        self.logged_step, self.logged_time = step, time.monotonic()
        self.seconds_at_peak: ModelFlops | None = None

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
        self.charts.close()

    def step(self, step: int) -> None:
        """Advances the bar; reads nothing from the device."""
        self.progress.update(self.bar, completed=step)

    def log(self, step: int, metrics: dict[str, Any], learning_rate: float) -> None:
        """Logs window means and throughput. Raises UserError if a mean is not finite."""
        scalars = {name: float(value) for name, value in metrics.items()}
        need_finite(step, scalars)
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
        others = {"learning_rate": learning_rate, **_device_memory()}
        shown = scalars | speed | others
        logging.info("[%d] %s", step, ", ".join(f"{name}={value:.6g}" for name, value in shown.items()))
        self.charts.scalars(step, shown | by_noise)
        parts = {name.removeprefix("loss_"): value for name, value in scalars.items() if "loss_" in name}
        losses = " ".join(f"{name} {value:.4f}" for name, value in parts.items())
        self.progress.update(self.bar, losses=f"{losses} {speed['examples_per_second']:.0f} examples/s")

    def scores(self, step: int, scores: dict[str, float], seconds: float) -> None:
        """Logs validation scores, and the contact sheets of this step in `samples/`."""
        self._append({"step": step, **{f"val_{name}": value for name, value in scores.items()}})
        shown = {name: value for name, value in scores.items() if "/" not in name}
        of_kinds = {f"val_{name}": value for name, value in scores.items() if "/" in name}
        self.charts.scalars(step, {f"val/{name}": value for name, value in shown.items()} | of_kinds)
        self.logged_time += seconds  # validation is not training time
        if self.first:
            self._write_sheets(step)
        logging.info("step %d: validation %s in %.1f s", step, shown, seconds)

    def _write_sheets(self, step: int) -> None:
        for path in listed(self.workdir / "samples", f"_{step:06d}.png"):
            self.charts.image(step, path.name.rsplit("_", 1)[0], path.read_bytes())

    def _append(self, row: dict[str, Any]) -> None:
        if self.first:
            with (self.workdir / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
