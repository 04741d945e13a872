"""Optimizers: AdamW, or Muon for the matrices of blocks. Both share the schedule and gradient clipping."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from genmask_jax.config import LoopConfig, OptimizerConfig
from genmask_jax.parameters.plan import Parameter, ParameterPlan


def make_optimizer(
    config: OptimizerConfig, loop: LoopConfig, plan: ParameterPlan
) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW or Muon.

    The plan has the optimizer, weight decay and learning rate of each parameter. Only matrices decay, with
    those of adapters. Biases, norms, tables and embeddings do not: the embedding of a rare token would
    vanish, since few gradients restore it.

    The instruction encoder has a lower learning rate, because large first steps erase the differences between
    words.
    """
    make = {"adamw": _adam, "muon": _muon}[config.name]
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        _moments_in(make(config, plan), jnp.dtype(config.moments_dtype)),
        optax.add_decayed_weights(config.weight_decay, mask=_mask(plan, lambda parameter: parameter.decayed)),
        optax.scale_by_learning_rate(learning_rate_schedule(config, loop)),
        optax.masked(_scale_by_plan(plan), _mask(plan, lambda parameter: parameter.lr_scale != 1)),
    )


def _moments_in(tx: optax.GradientTransformation, dtype: jnp.dtype) -> optax.GradientTransformation:
    """Stores the moments of an optimizer in `dtype` between steps; the update is computed in float32."""
    if dtype == jnp.float32:
        return tx

    def cast(state: Any, dtype: jnp.dtype) -> Any:
        return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = tx.update(updates, cast(state, jnp.dtype(jnp.float32)), params)
        return updates, cast(state, dtype)

    return optax.GradientTransformation(lambda params: cast(tx.init(params), dtype), update)


def learning_rate_schedule(config: OptimizerConfig, loop: LoopConfig) -> optax.Schedule:
    """Linear warm-up, in at most a quarter of the run, then cosine decay to zero at the last step."""
    warmup_steps = min(config.warmup_steps, loop.num_steps // 4)
    return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup_steps, loop.num_steps, 0.0)


def _adam(config: OptimizerConfig, plan: ParameterPlan) -> optax.GradientTransformation:
    del plan
    return optax.scale_by_adam(b1=config.b1, b2=config.b2)


def _muon(config: OptimizerConfig, plan: ParameterPlan) -> optax.GradientTransformation:
    """Muon orthogonalises the updates of the matrices of blocks (Jordan et al. 2024); Adam updates the rest.

    Muon's updates are scaled to Adam's usual RMS (0.2 per weight, Liu et al. 2025), so that both share one
    learning rate. The AOL preconditioner normalises better than division by the norm (Boissin et al. 2025),
    which saves one of the usual five Newton-Schulz steps.
    """
    return optax.contrib.muon(
        -1.0,  # the plain direction; weight decay and learning rate are applied later
        ns_steps=4,
        preconditioning="aol",
        consistent_rms=0.2,
        adam_b1=config.b1,
        adam_b2=config.b2,
        muon_weight_dimension_numbers=lambda params: plan.map(_matrix_axes, params),
    )


def _matrix_axes(parameter: Parameter) -> optax.contrib.MuonDimensionNumbers | None:
    """Input and output axes of Muon's matrices [depth, input, output]; None for all other parameters."""
    return optax.contrib.MuonDimensionNumbers(1, 2) if parameter.optimizer == "muon" else None


def _scale_by_plan(plan: ParameterPlan) -> optax.GradientTransformation:
    """Multiplies updates by the learning-rate scales of their parameters."""

    def update(updates: Any, params: Any) -> Any:
        del params
        scales = plan.map(lambda parameter: parameter.lr_scale, updates)
        return jax.tree.map(lambda update, scale: update * scale, updates, scales)

    return optax.stateless(update)


def _mask(plan: ParameterPlan, predicate: Callable[[Parameter], bool]) -> Callable[[Any], Any]:
    """A mask for optax: the parameters that satisfy a predicate."""
    return lambda params: plan.map(predicate, params)
