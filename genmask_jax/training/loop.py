"""The training loop, shared by all tasks.

A task (`training/genmask.py`, `training/vae.py`) defines loss, data and validation; the loop resumes, steps,
logs, validates and saves.
"""

import dataclasses
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from absl import logging
from etils import epath
from jax.sharding import Mesh

from genmask_jax.config import LoopConfig, TrainConfig, VAETrainConfig
from genmask_jax.data.pipeline import draw
from genmask_jax.hardware.chips import peak_flops
from genmask_jax.hardware.flops import ModelFlops
from genmask_jax.parameters.plan import ParameterPlan
from genmask_jax.sharding import bytes_per_device, need_rows, part_of_batch, to_devices, tracing_on
from genmask_jax.training.checkpoints import Checkpoints
from genmask_jax.training.optimizer import learning_rate_schedule, make_optimizer
from genmask_jax.training.reporting import Reporter, need_finite, report_plan
from genmask_jax.training.state import TrainState, init_state, make_init
from genmask_jax.training.step import make_train_step
from genmask_jax.training.stopping import StopRequests
from genmask_jax.utils import hosts
from genmask_jax.utils.errors import UserError, first_line

AHEAD = 2
"""Steps that are dispatched before the device has finished the last; a stop waits for them."""
IN_TRAINING = "stopping after this step, with a checkpoint"


@runtime_checkable
class Task(Protocol):
    """What to train: parameters, data, loss and validation."""

    metric_names: tuple[str, ...]
    plan: ParameterPlan
    frozen: Any

    def init_params(self, key: jax.Array) -> Any:
        """Freshly initialised parameters; traced under jit."""
        ...

    def batches(self, batch_size: int, part: tuple[int, int]) -> Any:
        """An endless, resumable Grain iterator over this host's shard of every batch (`part_of_batch`)."""
        ...

    def start(self, params: Any) -> Any:
        """Initial parameters of a new run, given fresh ones (whose arrays may be deleted)."""
        ...

    def loss(self, params: Any, frozen: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict]:
        """The scalar loss, and scalars to log."""
        ...

    def flops(self, batch: Any) -> ModelFlops:
        """Model FLOPs of a training step on such a global batch, on all devices."""
        ...

    def evaluate(
        self, ema_params: Any, step: int, directory: epath.Path, between: Callable[[], None]
    ) -> dict[str, float]:
        """Validation scores, including `score`, which selects the best checkpoint (higher is better).

        Those of a part of the examples have a slash in their names: they are charted alone. `between` is
        called between batches, equally often on all hosts; it raises SystemExit to stop the validation.
        """
        ...


def check_batch(loop: LoopConfig, mesh: Mesh) -> None:
    """Raises UserError if half a batch, or half a microbatch, cannot be sharded evenly over the mesh."""
    rows = loop.global_batch_size // 2 // loop.grad_accumulation_steps
    need_rows(rows, mesh, "config.loop.global_batch_size / 2 / grad_accumulation_steps")


def rehearse(task: Task, config: TrainConfig | VAETrainConfig) -> None:
    """Draws a batch, and builds state and loss abstractly: what is wrong is found before it costs a run.

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
        with tracing_on(plan):
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

    A step is saved before it is validated. If it was stopped in between, the validation is made up first.

    Args:
        task: what is trained.
        config: of the run.
        workdir: directory of the run.
        stop: answers signals.
        profile: steps that the first host traces to WORKDIR/profile.

    Returns:
        The final state, and the scores of the last validation.

    Raises:
        UserError: a metric is not finite; no checkpoint of it is written. Or no checkpoint can be read.
        SystemExit: with status 1, after a SIGTERM or SIGINT, once a checkpoint is written. With several
            hosts, one of them is enough: all stop at the same step, or batch of the validation.
    """
    loop, plan, mesh = config.loop, task.plan, task.plan.mesh
    report_plan(plan, workdir)
    tx = make_optimizer(config.optimizer, loop, plan)
    init = make_init(task.init_params, tx, task.metric_names, ema=loop.ema_decay > 0)
    state, shardings = init_state(init, config.seed, plan)
    data = task.batches(loop.global_batch_size, part_of_batch(mesh))
    checkpoints = Checkpoints(workdir)
    restored = checkpoints.latest_step() is not None
    state = checkpoints.restore(state, data) if restored else _start(task, state)
    step = int(jax.device_get(state.step))
    scores = checkpoints.scores(step) if restored else {}
    peak = peak_flops(mesh.devices.flat[0].device_kind)
    dispatched: deque[jax.Array] = deque()
    profile = range(max(profile.start, step), profile.stop if hosts.is_first() else 0)
    held = bytes_per_device((state, task.frozen)) / 2**20
    logging.info("train state and frozen parameters: %.1f MiB on each device", held)
    train_step = make_train_step(task.loss, tx, loop, plan, shardings)
    schedule = learning_rate_schedule(config.optimizer, loop)

    def due() -> bool:
        return step % loop.eval_every_steps == 0 or step == loop.num_steps

    def between() -> None:
        if stop.reached():
            raise SystemExit(
                f"stopped at step {step}, in its validation; checkpoint written, the same command with "
                "--resume continues"
            )

    def validate() -> dict[str, float]:
        began = time.monotonic()
        found = task.evaluate(state.eval_params, step, workdir / "samples", between)
        reporter.scores(step, found, time.monotonic() - began)
        overall = {name: value for name, value in found.items() if "/" not in name}
        checkpoints.score(step, overall)
        between()
        return overall

    reporter = Reporter(workdir, loop, step, validated=bool(scores))
    with closing(data), closing(checkpoints), reporter:
        if restored and due() and not scores:
            scores = validate()
        while step < loop.num_steps:
            if profile and step == profile.start:
                jax.profiler.start_trace(workdir / "profile", create_perfetto_trace="://" not in str(workdir))
            batch = to_devices(draw(data), mesh)
            if peak and reporter.seconds_at_peak is None:
                reporter.seconds_at_peak = task.flops(batch) / (peak * mesh.size)
            with jax.transfer_guard("disallow"):
                state = train_step(state, task.frozen, batch)
            stop.expect(IN_TRAINING)
            step += 1
            dispatched.append(jnp.copy(state.step))  # the next step donates the state itself
            if len(dispatched) > AHEAD:
                jax.block_until_ready(dispatched.popleft())
            if profile and step == profile.stop:
                jax.block_until_ready(state)
                jax.profiler.stop_trace()
            reporter.step(step)
            if step % loop.log_every_steps == 0 or step == loop.num_steps:
                reporter.log(step, jax.device_get(state.metrics), float(jnp.asarray(schedule(step - 1))))
            stopped = stop.reached()
            if stopped or due() or step % loop.checkpoint_every_steps == 0:
                need_finite(step, {name: float(x) for name, x in jax.device_get(state.metrics).items()})
                # Before the next batch is drawn, so that the data's position belongs to the step.
                checkpoints.save(state, data)
            if stopped:
                raise SystemExit(
                    f"stopped at step {step}; checkpoint written, the same command with --resume continues"
                )
            if due():
                stop.expect(f"stopping the validation of step {step}, after its checkpoint")
                scores = validate()
                stop.expect(IN_TRAINING)
    return state, scores


def _start(task: Task, state: TrainState) -> TrainState:
    """A fresh state with the task's initial parameters."""
    params = task.start(state.params)
    if params is state.params or state.ema_params is None:
        return dataclasses.replace(state, params=params)
    return dataclasses.replace(state, params=params, ema_params=jax.tree.map(jnp.copy, params))
