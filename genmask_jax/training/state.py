"""The train state and its initialisation: shapes first, then shardings, then a jitted, sharded init."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from genmask_jax.parameters.plan import ParameterPlan
from genmask_jax.training.skipping import no_skips

Params = Any
Leaf = Any
"""An array, or what replaces it in a tree of JAX: a shape, a sharding, None."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a training step changes. With the position of the data, it is all that resuming needs.

    step: int32, number of finished steps.
    params: trained parameters.
    ema_params: their exponential moving average; None if `loop.ema_decay` is 0.
    opt_state: the optimiser's state (optax).
    key: PRNG key data of the run; step n uses fold_in(key, n).
    metrics: means over the updates of the current logging window; a resumed run logs the same numbers.
    skips: counts of skipped steps (`Skips`).
    """

    step: Leaf
    params: Params
    ema_params: Params
    opt_state: optax.OptState
    key: Leaf
    metrics: dict[str, Leaf]
    skips: Any

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
        ema: whether to average the parameters.
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
            skips=no_skips(),
        )

    return init


def init_state(
    init: Callable[[jax.Array], TrainState], seed: int, plan: ParameterPlan
) -> tuple[TrainState, Any]:
    """Creates a new state, sharded over the mesh from the start. Returns it with its shardings.

    Args:
        init: function from `make_init`. It is traced, and never runs on a single device.
        seed: seed of initialisation and training.
        plan: plan of the parameters; their averages and moments are sharded like them.
    """
    shardings = plan.shardings(jax.eval_shape(init, jax.random.key(seed)))
    return jax.jit(lambda: init(jax.random.key(seed)), out_shardings=shardings)(), shardings
