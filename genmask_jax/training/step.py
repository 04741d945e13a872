"""One training step, pure and jitted: gradients, update (or none), EMA, windowed means of the metrics."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from genmask_jax.config import LoopConfig
from genmask_jax.parameters.plan import ParameterPlan
from genmask_jax.sharding import batch_sharding, constrain_parameters, tracing_context
from genmask_jax.training.skipping import count_skip
from genmask_jax.training.state import TrainState

NORMS = ("grad_norm", "update_norm")
"""Metrics of the step itself: norms of the gradients and of the parameter updates."""
Loss = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
"""(params, frozen, batch, key) -> scalar loss, scalars to log (including the loss)."""


def make_train_step(
    loss: Loss,
    tx: optax.GradientTransformation,
    loop: LoopConfig,
    plan: ParameterPlan,
    shardings: TrainState,
) -> Callable[[TrainState, Any, Any], TrainState]:
    """The jitted step (state, frozen, batch) -> state; donates the old state. `skipping.py` may skip it."""

    def train_step(state: TrainState, frozen: Any, batch: Any) -> TrainState:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        with tracing_context(plan):
            grads, metrics = accumulate_gradients(
                loss, state.params, frozen, batch, key, loop.grad_accumulation_steps
            )
        grad_norm, position = optax.tree.norm(grads), state.step % loop.log_every_steps
        skips = count_skip(state.skips, metrics["loss"], grad_norm, position, loop.max_grad_norm_ratio)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics |= dict(zip(NORMS, (grad_norm, optax.tree.norm(updates)), strict=True))
        updated = TrainState(
            step=state.step + 1,
            params=params,
            ema_params=update_ema(state.ema_params, params, state.step, loop.ema_decay),
            opt_state=opt_state,
            key=state.key,
            metrics=update_running_means(state.metrics, metrics, position - skips.in_window),
            skips=skips,
        )
        unchanged = dataclasses.replace(state, step=updated.step, skips=skips)
        return jax.tree.map(lambda new, old: jnp.where(skips.reason == 0, new, old), updated, unchanged)

    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(shardings, None, batch_sharding(plan.mesh)),
        out_shardings=shardings,
    )


def accumulate_gradients(
    loss: Loss, params: Any, frozen: Any, batch: Any, key: jax.Array, steps: int
) -> tuple[Any, dict[str, jax.Array]]:
    """Mean gradient and metrics over `steps` microbatches of equal size, one after the other.

    Gradients and their running sum are sharded like the parameters.
    """

    def gradient(*arguments: Any) -> tuple[Any, dict[str, jax.Array]]:
        grads, metrics = jax.grad(loss, has_aux=True)(*arguments)
        return constrain_parameters(grads), metrics

    if steps == 1:
        return gradient(params, frozen, batch, key)
    # A microbatch is every `steps`-th row, so that it is spread over the devices like the batch.
    parts = jax.tree.map(lambda x: x.reshape(-1, steps, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(total, inputs):
        part, index = inputs
        result = gradient(params, frozen, part, jax.random.fold_in(key, index))
        return jax.tree.map(lambda a, b: a + b / steps, total, result), None

    shapes = jax.eval_shape(gradient, params, frozen, jax.tree.map(lambda x: x[0], parts), key)
    grads, metrics = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    zeros = constrain_parameters(grads), metrics
    return jax.lax.scan(add, zeros, (parts, jnp.arange(steps)))[0]


def update_ema(ema: Any, params: Any, step: jax.Array, decay: float) -> Any:
    """ema = d ema + (1 - d) params with d = min(decay, (1 + step) / (10 + step)); None stays None."""
    if ema is None:
        return None
    rate = 1 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda e, p: e + rate * (p - e), ema, params)


def update_running_means(means: dict, values: dict, count: jax.Array) -> dict:
    """Running means; `count` values are in them so far, and they restart if it is not positive."""
    return {
        name: jnp.where(count <= 0, values[name], mean + (values[name] - mean) / (count + 1))
        for name, mean in means.items()
    }
