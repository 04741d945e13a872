"""The training loop: what happens, in order, whatever is trained.

A task (`training/genmask.py`, `training/vae.py`) says what its loss, data and validation are; the loop
resumes, steps, logs, validates and saves.
"""

import dataclasses
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from absl import logging
from clu import parameter_overview
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from genmask_jax import cli
from genmask_jax.config import TrainConfig, VAETrainConfig, config_difference, to_json
from genmask_jax.errors import UserError
from genmask_jax.sharding import to_devices
from genmask_jax.training.checkpoints import Checkpoints, read_config
from genmask_jax.training.optimizer import learning_rate_schedule, make_optimizer
from genmask_jax.training.reporting import Reporter
from genmask_jax.training.state import TrainState, init_state, make_init
from genmask_jax.training.step import make_train_step


class Task(Protocol):
    """What is trained."""

    metric_names: tuple[str, ...]
    frozen: Any

    def init_params(self, key: jax.Array) -> Any:
        """Fresh parameters, traced under jit."""
        ...

    def batches(self, host_batch_size: int) -> Any:
        """An endless, resumable Grain iterator over this host's batches."""
        ...

    def start(self, params: Any) -> Any:
        """What a new run starts from, given its fresh parameters (which may be deleted)."""
        ...

    def loss(self, params: Any, frozen: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict]:
        """Scalar loss and scalars to report."""
        ...

    def evaluate(self, ema_params: Any, step: int, directory: epath.Path) -> dict[str, float]:
        """Validation scores, `score` among them: the higher the better."""
        ...


def check_workdir(workdir: str, *, resume: bool, overwrite: bool, config: Any) -> epath.Path:
    """The directory of a run, as an absolute path; nothing in it is changed.

    A directory that holds a run is left alone unless `resume` or `overwrite` says what to do with it;
    resuming asks for the config that the run began with (a longer run has another schedule).

    Raises:
        UserError: one line on what stands in the way.
    """
    path = epath.Path(workdir).resolve()  # Orbax takes absolute paths only
    used = (path / "config.json").exists()
    if resume and overwrite:
        raise UserError("--resume and --overwrite: give one of them, not both")
    if path.is_file():
        raise UserError(f"--workdir={workdir} is a file; give a directory")
    if used and resume:
        changed = config_difference(read_config(type(config), path), config)
        if changed:
            raise UserError(f"{workdir}: --resume with another config than the run began with: {changed}")
    elif not (used and overwrite) and path.exists() and any(path.iterdir()):
        what = "holds a run; add --resume or --overwrite" if used else "is not empty; give a new directory"
        raise UserError(f"--workdir={workdir} {what}")
    return path


def make_workdir(path: epath.Path, *, overwrite: bool) -> None:
    """Makes the directory that `check_workdir` found good; `overwrite` deletes the run in it."""
    if overwrite and path.exists():
        path.rmtree()
    cli.make_directory(path, "--workdir")


def train(
    task: Task, config: TrainConfig | VAETrainConfig, workdir: epath.Path, mesh: Mesh
) -> tuple[TrainState, dict[str, float]]:
    """Trains to `config.loop.num_steps`, from the last checkpoint in `workdir` if there is one.

    Returns:
        The last state, and the last validation's scores.

    Raises:
        FloatingPointError: the loss was not finite where it was logged.
        SystemExit: with status 1, after a SIGTERM or SIGINT and a checkpoint at the step reached.
    """
    loop = config.loop
    tx = make_optimizer(config.optimizer, loop)
    state, shardings = init_state(make_init(task.init_params, tx, task.metric_names), config.seed, mesh)
    logging.info("\n%s", parameter_overview.get_parameter_overview(_plain(state.params), include_stats=False))
    data = task.batches(loop.global_batch_size // jax.process_count())
    checkpoints = Checkpoints(workdir)
    if checkpoints.latest_step() is not None:
        state = checkpoints.restore(state, data)
    else:
        params = task.start(state.params)
        ema_params = jax.tree.map(jnp.copy, params) if params is not state.params else state.ema_params
        state = dataclasses.replace(state, params=params, ema_params=ema_params)
    step = int(jax.device_get(state.step))
    (workdir / "config.json").write_text(to_json(config))
    train_step = make_train_step(task.loss, tx, loop, mesh, shardings)
    schedule = learning_rate_schedule(config.optimizer, loop)
    scores: dict[str, float] = {}
    with Reporter(workdir, loop, step) as reporter, _stop_requests() as stop:
        while step < loop.num_steps:
            with jax.transfer_guard("disallow"):
                state = train_step(state, task.frozen, to_devices(next(data), mesh))
            step += 1
            reporter.step(step)
            if step % loop.log_every_steps == 0 or step == loop.num_steps:
                reporter.log(step, jax.device_get(state.metrics), float(schedule(step - 1)))
            last, evaluated = stop or step == loop.num_steps, False
            if step % loop.eval_every_steps == 0 or step == loop.num_steps:
                began = time.monotonic()
                scores = task.evaluate(state.ema_params, step, workdir / "samples")
                reporter.scores(step, scores, time.monotonic() - began)
                evaluated = True
            # Saved before the next batch is drawn, so that the data's position belongs to the step.
            if last or evaluated or step % loop.checkpoint_every_steps == 0:
                checkpoints.save(state, data, scores["score"] if evaluated else None)
            if stop and step < loop.num_steps:
                checkpoints.close()
                raise SystemExit(f"stopped at step {step}; the checkpoint is written, go on with --resume")
    checkpoints.close()
    return state, scores


def _plain(params: Any) -> Any:
    return nnx.to_pure_dict(params)


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """A list that is no longer empty once SIGTERM (preemption) or SIGINT (Ctrl-C) has come."""
    received: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(s, lambda number, frame: received.append(number)) for s in signals]
    try:
        yield received
    finally:
        for s, handler in zip(signals, before, strict=True):
            signal.signal(s, handler)
