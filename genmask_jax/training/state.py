"""The train state and its initialisation: shapes first, then shardings, then a jitted, sharded init."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from genmask_jax.parameters.plan import ParameterPlan

Params = Any
Leaf = Any
"""An array, or what JAX puts in the place of one in a tree: shapes, shardings, None."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step changes; with the data position, all that resuming needs.

    step: int32, number of steps done.
    params, ema_params: the trained modules' parameters and their exponential moving average; None without one
        (`loop.ema_decay` 0), when the parameters themselves are evaluated.
    opt_state: the optimiser's state (optax).
    key: the run's PRNG key data; step n draws from fold_in(key, n).
    metrics: means over the current logging window, so that a resumed run logs the same numbers.
    """

    step: Leaf
    params: Params
    ema_params: Params
    opt_state: optax.OptState
    key: Leaf
    metrics: dict[str, Leaf]

    @property
    def eval_params(self) -> Params:
        """The parameters to validate and to sample with."""
        return self.params if self.ema_params is None else self.ema_params


def make_init(
    init_params: Callable[[jax.Array], Params],
    tx: optax.GradientTransformation,
    metric_names: tuple[str, ...],
    *,
    ema: bool = True,
) -> Callable[[jax.Array], TrainState]:
    """Returns a function: PRNG key -> new state.

    Args:
        init_params: PRNG key -> parameters.
        tx: the optimiser.
        metric_names: names of the logged scalars.
        ema: whether to keep an average of the parameters.
    """

    def init(key: jax.Array) -> TrainState:
        init_key, train_key = jax.random.split(key)
        params = init_params(init_key)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema_params=jax.tree.map(jnp.copy, params) if ema else None,
            opt_state=tx.init(params),
            key=jax.random.key_data(train_key),
            metrics={name: jnp.zeros(()) for name in metric_names},
        )

    return init


def init_state(
    init: Callable[[jax.Array], TrainState], seed: int, plan: ParameterPlan
) -> tuple[TrainState, Any]:
    """Creates a new state, sharded over the mesh from the start. Returns it with its shardings.

    Args:
        init: from `make_init`; only traced, never run on a single device.
        seed: of parameters and training.
        plan: of the parameters; what belongs to one of them lies where it does.
    """
    shardings = plan.shardings(jax.eval_shape(init, jax.random.key(seed)))
    return jax.jit(lambda: init(jax.random.key(seed)), out_shardings=shardings)(), shardings
