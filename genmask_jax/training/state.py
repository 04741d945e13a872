"""The train state and how it is made: shapes first, then shardings, then a jitted, sharded init."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from genmask_jax.config import LoopConfig, OptimizerConfig
from genmask_jax.sharding import state_shardings

Params = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a step changes, and all that a resume needs beside the data's position.

    step: int32, steps done.
    params, ema_params: the trained modules' parameters and their running average.
    opt_state: of optax.
    key: the run's PRNG key data; step n draws from fold_in(key, n).
    metrics: means over the current logging window, so that a resumed run logs the same numbers.
    """

    step: jax.Array
    params: Params
    ema_params: Params
    opt_state: optax.OptState
    key: jax.Array
    metrics: dict[str, jax.Array]


def make_optimizer(config: OptimizerConfig, loop: LoopConfig) -> optax.GradientTransformation:
    """AdamW; matrices decay, vectors (biases, norms, tables of one row) do not.

    The instruction encoder's updates are scaled down: at the DiT's rate its noisy first steps wash out what
    tells one word from another.
    """
    schedule = learning_rate_schedule(config, loop)
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adamw(
            schedule,
            b1=config.b1,
            b2=config.b2,
            weight_decay=config.weight_decay,
            mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
        ),
        optax.masked(optax.scale(config.instruction_lr_scale), _of_instruction),
    )


def _of_instruction(params: Params) -> Any:
    """Which parameters are the instruction encoder's."""
    return jax.tree.map_with_path(lambda path, _: getattr(path[0], "key", None) == "instruction", params)


def learning_rate_schedule(config: OptimizerConfig, loop: LoopConfig) -> optax.Schedule:
    """Linear warm-up to the peak, cosine to zero at the last step."""
    return optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup_steps, loop.num_steps, 0.0
    )


def init_state(
    init_params: Callable[[jax.Array], Params],
    tx: optax.GradientTransformation,
    metric_names: tuple[str, ...],
    seed: int,
    mesh: Mesh,
) -> tuple[TrainState, Any]:
    """A new state, made in place on the mesh, and its shardings.

    Args:
        init_params: PRNG key -> parameters; traced, never run on one device.
        tx: the optimiser.
        metric_names: of the scalars that the loss reports.
        seed: of parameters and training.
        mesh: where the state lives.
    """

    def init(key: jax.Array) -> TrainState:
        init_key, train_key = jax.random.split(key)
        params = init_params(init_key)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema_params=jax.tree.map(jnp.copy, params),
            opt_state=tx.init(params),
            key=jax.random.key_data(train_key),
            metrics={name: jnp.zeros(()) for name in metric_names},
        )

    shardings = state_shardings(jax.eval_shape(init, jax.random.key(seed)), mesh)
    return jax.jit(init, out_shardings=shardings)(jax.random.key(seed)), shardings
