"""The training loop, shared by all tasks.

A task (`training/genmask.py`, `training/vae.py`) defines loss, data and validation; the loop resumes, steps,
logs, validates and saves.
"""

import dataclasses
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from absl import logging
from etils import epath
from jax.sharding import Mesh

from genmask_jax.config import LoopConfig, TrainConfig, VAETrainConfig
from genmask_jax.data.pipeline import draw
from genmask_jax.hardware.flops import ModelFlops
from genmask_jax.parameters.plan import ParameterPlan
from genmask_jax.sharding import bytes_per_device, need_rows, part_of_batch, to_devices, tracing_context
from genmask_jax.training.checkpoints import Checkpoints
from genmask_jax.training.optimizer import make_optimizer
from genmask_jax.training.profiling import Profiler
from genmask_jax.training.reporting import Reporter, need_finite, report_plan
from genmask_jax.training.skipping import SkipWatch
from genmask_jax.training.state import TrainState, init_state, make_init
from genmask_jax.training.step import make_train_step
from genmask_jax.training.stopping import StopRequests
from genmask_jax.utils.errors import UserError, first_line

IN_TRAINING = "stopping after this step, with a checkpoint"
RESUME = "the same command with --resume continues"


@runtime_checkable
class Task(Protocol):
    """What to train: parameters, data, loss and validation."""

    metric_names: tuple[str, ...]
    plan: ParameterPlan
    frozen: Any

    def init_params(self, key: jax.Array) -> Any:
        """Newly initialised parameters; traced under jit."""
        ...

    def batches(self, batch_size: int, part: tuple[int, int]) -> Any:
        """`data.pipeline.Batches`, with this host's shard of every batch (`part_of_batch`)."""
        ...

    def start(self, params: Any) -> Any:
        """Initial parameters of a new run, given newly initialised ones (whose arrays may be deleted)."""
        ...

    def loss(self, params: Any, frozen: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict]:
        """The scalar loss, and scalars to log."""
        ...

    def flops(self, batch: Any) -> ModelFlops:
        """Model FLOPs of a training step on a global batch, summed over all devices."""
        ...

    def evaluate(
        self, ema_params: Any, step: int, directory: epath.Path, check_stop: Callable[[], None]
    ) -> dict[str, float]:
        """Validation scores, including `score`, which selects the best checkpoint (higher is better).

        Scores of a group of examples have a slash in their names and appear only in charts. `check_stop` is
        called between batches, the same number of times on all hosts; it raises SystemExit to stop.
        """
        ...


def check_batch(config: TrainConfig | VAETrainConfig, mesh: Mesh) -> None:
    """Raises UserError if a batch or microbatch, task by task, cannot be sharded evenly over the mesh."""
    loop, total = config.loop, config.data.mixture.total
    rows = loop.global_batch_size // total // loop.grad_accumulation_steps
    need_rows(rows, mesh, f"config.loop.global_batch_size / {total} / grad_accumulation_steps")


def dry_run(task: Task, config: TrainConfig | VAETrainConfig) -> None:
    """Draws a batch and traces the initialisation and the loss, to find errors before a run is overwritten.

    Nothing is allocated on the devices.

    Raises:
        UserError: an example cannot be made, or the config's parts do not fit together.
    """
    loop, plan = config.loop, task.plan
    tx = make_optimizer(config.optimizer, loop, plan)
    with closing(task.batches(loop.global_batch_size, part_of_batch(plan.mesh))) as data:
        batch = draw(data)
    try:
        init = make_init(task.init_params, tx, task.metric_names, ema=loop.ema_decay > 0)
        state = jax.eval_shape(init, jax.random.key(0))
        with tracing_context(plan):
            jax.eval_shape(task.loss, state.params, task.frozen, batch, jax.random.key(0))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        line = first_line(error)
        raise UserError(f"--config: the model cannot be built with these fields: {line}") from error


def train(
    task: Task,
    config: TrainConfig | VAETrainConfig,
    workdir: epath.Path,
    stop: StopRequests,
    profile: range = range(0),
) -> tuple[TrainState, dict[str, float]]:
    """Trains to `config.loop.num_steps`, from the last checkpoint in `workdir` if there is one.

    A checkpoint is saved before each validation. A resumed run repeats an interrupted validation.

    Args:
        task: parameters, data, loss and validation.
        config: config of the run.
        workdir: directory of the run.
        stop: requests to stop (SIGTERM, SIGINT).
        profile: steps that the first host traces to WORKDIR/profile.

    Returns:
        The final state, and the scores of the last validation.

    Raises:
        UserError: a metric is not finite, too many steps are skipped, or no checkpoint can be read.
        SystemExit: with status 1, after a SIGTERM or SIGINT, once a checkpoint is written. With several
            hosts, a signal to one stops all at the same step, or at the same batch of a validation.
    """
    report_plan(task.plan, workdir)
    tx = make_optimizer(config.optimizer, config.loop, task.plan)
    data = task.batches(config.loop.global_batch_size, part_of_batch(task.plan.mesh))
    checkpoints = Checkpoints(workdir)
    with closing(data), closing(checkpoints):
        state, shardings, scores = _restore_or_start(task, config, tx, checkpoints, data)
        step = int(jax.device_get(state.step))
        with Reporter(workdir, config, step, validated=bool(scores)) as reporter:
            loop = _Loop(
                task=task,
                config=config.loop,
                workdir=workdir,
                stop=stop,
                data=data,
                checkpoints=checkpoints,
                reporter=reporter,
                skip_watch=SkipWatch(workdir, config.loop, data),
                profiler=Profiler(workdir, profile, step),
                train_step=make_train_step(task.loss, tx, config.loop, task.plan, shardings),
            )
            return loop.run(state, step, scores)


def _restore_or_start(
    task: Task,
    config: TrainConfig | VAETrainConfig,
    tx: optax.GradientTransformation,
    checkpoints: Checkpoints,
    data: Any,
) -> tuple[TrainState, Any, dict[str, float]]:
    """The state, its shardings, and the scores of its step (empty if it was not validated)."""
    init = make_init(task.init_params, tx, task.metric_names, ema=config.loop.ema_decay > 0)
    state, shardings = init_state(init, config.seed, task.plan)
    restored = checkpoints.latest_step() is not None
    state = checkpoints.restore(state, data) if restored else _start(task, state)
    memory = bytes_per_device((state, task.frozen)) / 2**20
    logging.info("train state and frozen parameters: %.1f MiB on each device", memory)
    return state, shardings, checkpoints.scores(int(jax.device_get(state.step))) if restored else {}


def _start(task: Task, state: TrainState) -> TrainState:
    """A new state with the initial parameters of the task."""
    params = task.start(state.params)
    if params is state.params or state.ema_params is None:
        return dataclasses.replace(state, params=params)
    return dataclasses.replace(state, params=params, ema_params=jax.tree.map(jnp.copy, params))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Loop:
    """The training loop, and the objects that it uses."""

    task: Task
    config: LoopConfig
    workdir: epath.Path
    stop: StopRequests
    data: Any
    checkpoints: Checkpoints
    reporter: Reporter
    skip_watch: SkipWatch
    profiler: Profiler
    train_step: Callable[[TrainState, Any, Any], TrainState]

    def run(
        self, state: TrainState, step: int, scores: dict[str, float]
    ) -> tuple[TrainState, dict[str, float]]:
        """Trains from `step` to the last step; `scores` are those of `step` (empty if not validated)."""
        config, save, validate = self.config, False, False
        if step and self._is_validation_due(step) and not scores:
            scores = self._validate(state, step)
        while step < config.num_steps:
            self.profiler.before(step)
            state = self._train_step(state)
            step += 1
            self.skip_watch.add(step, state.skips)
            self.profiler.after(step, state)
            self.reporter.step(step, state)
            stopped = self.stop.requested()
            validate |= self._is_validation_due(step)
            save |= stopped or validate or step % config.checkpoint_every_steps == 0
            # Skipped steps wait for an update: if parameters are the cause, the last checkpoint must stay.
            if save and (not self.skip_watch.last_skipped() or step == config.num_steps):
                need_finite(step, {name: float(x) for name, x in jax.device_get(state.metrics).items()})
                self.reporter.flush()
                # Before drawing the next batch, so that the saved position of the data matches this step.
                self.checkpoints.save(state, self.data)
                save = False
            if stopped:
                how = "which was skipped, without a checkpoint" if save else "with a checkpoint"
                raise SystemExit(f"stopped at step {step}, {how}; {RESUME}")
            if validate and not save:
                scores, validate = self._validate(state, step), False
        return state, scores

    def _train_step(self, state: TrainState) -> TrainState:
        mesh = self.task.plan.mesh
        batch = to_devices(draw(self.data), mesh)
        self.reporter.count_flops(self.task.flops, batch, mesh)
        with jax.transfer_guard("disallow"):
            state = self.train_step(state, self.task.frozen, batch)
        self.stop.expect(IN_TRAINING)
        return state

    def _is_validation_due(self, step: int) -> bool:
        """Whether this step is followed by a validation."""
        return step % self.config.eval_every_steps == 0 or step == self.config.num_steps

    def _validate(self, state: TrainState, step: int) -> dict[str, float]:
        """Validates a step whose checkpoint was written; returns its overall scores."""

        def check_stop() -> None:
            if self.stop.requested():
                raise SystemExit(
                    f"stopped during the validation of step {step}; its checkpoint is saved; {RESUME}"
                )

        self.stop.expect(f"stopping the validation of step {step}, after its checkpoint")
        start = time.monotonic()
        scores = self.task.evaluate(state.eval_params, step, self.workdir / "samples", check_stop)
        self.reporter.log_scores(step, scores, time.monotonic() - start)
        overall = {name: value for name, value in scores.items() if "/" not in name}
        self.checkpoints.record_scores(step, overall)
        check_stop()
        self.stop.expect(IN_TRAINING)
        return overall
