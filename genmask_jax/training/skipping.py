"""Steps whose update is skipped: the loss or the gradient is not finite, or the gradient is a spike.

The jitted step decides (`count_skip`): it then keeps parameters, EMA and optimizer state, and only the step
advances. The host reads the decision when the step is finished (`SkipWatch`), reports the batch, and stops
the run after too many skipped steps in a row.
"""

import dataclasses
import json
from collections import deque
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from etils import epath

from genmask_jax.config import LoopConfig
from genmask_jax.data.pipeline import Batches
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.hosts import is_first
from genmask_jax.utils.paths import Appender

SKIPPED_FILE = "skipped_steps.jsonl"
"""File of a run with a line for each skipped step, with the examples of its batch."""
REASONS = ("", "the loss is not finite", "the gradient is not finite", "the gradient norm is a spike")
"""Why an update is skipped, by `Skips.reason`."""
AVERAGED_UPDATES = 100
"""Spikes are compared with the mean norm over about this many updates, and not judged before as many."""
MAX_QUEUED_STEPS = 2
"""Maximum number of steps dispatched ahead of the device."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Skips:
    """Counts of skipped steps: scalars, int32 except `mean_grad_norm`.

    reason: why the last step was skipped, an index of REASONS; 0 if it was not.
    in_a_row: number of skipped steps since the last update.
    in_window: number of skipped steps in the current logging window.
    total: number of skipped steps in the run.
    averaged: number of updates in `mean_grad_norm`.
    mean_grad_norm: float32, exponential moving average of the gradient norms of updates.
    """

    reason: Any
    in_a_row: Any
    in_window: Any
    total: Any
    averaged: Any
    mean_grad_norm: Any


def no_skips() -> Skips:
    """The counts of a new run."""
    return Skips(*(jnp.zeros((), jnp.int32) for _ in range(5)), mean_grad_norm=jnp.zeros(()))


def count_skip(
    skips: Skips, loss: jax.Array, grad_norm: jax.Array, position: jax.Array, max_ratio: float
) -> Skips:
    """Decides whether a step is skipped, and counts it.

    Args:
        skips: counts before the step.
        loss, grad_norm: scalars of the step.
        position: index of the step in the logging window.
        max_ratio: largest ratio of `grad_norm` to the mean norm of earlier updates; 0 for no limit.
    """
    is_judged = (max_ratio > 0) & (skips.averaged >= AVERAGED_UPDATES)
    is_spike = is_judged & (grad_norm > max_ratio * skips.mean_grad_norm)
    reason = jnp.select([~jnp.isfinite(loss), ~jnp.isfinite(grad_norm), is_spike], [1, 2, 3], 0)
    skipped = reason > 0
    averaged = jnp.minimum(skips.averaged + 1, AVERAGED_UPDATES)
    mean = skips.mean_grad_norm + (grad_norm - skips.mean_grad_norm) / averaged
    return Skips(
        reason=reason.astype(jnp.int32),
        in_a_row=jnp.where(skipped, skips.in_a_row + 1, 0),
        in_window=jnp.where(position == 0, 0, skips.in_window) + skipped,
        total=skips.total + skipped,
        averaged=jnp.where(skipped, skips.averaged, averaged),
        mean_grad_norm=jnp.where(skipped, skips.mean_grad_norm, mean),
    )


_copy = jax.jit(lambda skips: jax.tree.map(jnp.copy, skips))


class SkipWatch:
    """Waits for steps, a few behind the newest one, and reports those that were skipped."""

    def __init__(self, workdir: epath.Path, loop: LoopConfig, data: Batches):
        self._workdir, self._loop, self._data = workdir, loop, data
        self._queue: deque[tuple[int, Skips]] = deque()
        self._last_skipped = False
        self._rows = Appender(workdir / SKIPPED_FILE)

    def add(self, step: int, skips: Skips) -> None:
        """Adds a dispatched step. Waits for the one MAX_QUEUED_STEPS before it.

        Raises:
            UserError: more than `loop.max_skipped_steps` steps in a row were skipped; the same on all hosts.
        """
        self._queue.append((step, _copy(skips)))  # a copy, because the next step donates the state
        if len(self._queue) > MAX_QUEUED_STEPS:
            self._read(*self._queue.popleft())

    def last_skipped(self) -> bool:
        """Waits for all steps; returns whether the last one was skipped. Raises as `add` does."""
        while self._queue:
            self._read(*self._queue.popleft())
        return self._last_skipped

    def _read(self, step: int, skips: Skips) -> None:
        skips = jax.device_get(skips)
        self._last_skipped = bool(skips.reason)
        if not self._last_skipped:
            return
        reason, path = REASONS[skips.reason], self._workdir / SKIPPED_FILE
        logging.warning("step %d: %s; its update is skipped (%d in this run)", step, reason, skips.total)
        if is_first():
            row = {"step": step, "reason": reason, "examples": self._data.examples(step - 1)}
            self._rows.append(f"{json.dumps(row)}\n".encode())
            self._rows.flush()
        limit = self._loop.max_skipped_steps
        if skips.in_a_row > limit:
            raise UserError(
                f"step {step}: {reason}, so {skips.in_a_row} steps in a row were skipped, more than "
                f"config.loop.max_skipped_steps={limit}; none of them was saved, and {path} lists their "
                "examples. Continue from the last checkpoint with --resume and a higher "
                "config.loop.max_skipped_steps, or with --resume --change=optimizer.learning_rate and a "
                "lower config.optimizer.learning_rate"
            )
