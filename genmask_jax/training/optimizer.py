"""Optimisers: AdamW, or Muon for the blocks' matrices. Both share the schedule and gradient clipping."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from genmask_jax.config import LoopConfig, OptimizerConfig

Params = Any


def make_optimizer(config: OptimizerConfig, loop: LoopConfig) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW or Muon, with a lower learning rate for the instruction encoder.

    At the DiT's learning rate, the instruction encoder's noisy first steps erase the differences between
    words.
    """
    schedule = learning_rate_schedule(config, loop)
    make = {"adamw": _adamw, "muon": _muon}[config.name]
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        _moments_in(make(config, schedule), jnp.dtype(config.moments_dtype)),
        optax.masked(optax.scale(config.instruction_lr_scale), _of_instruction),
    )


def _moments_in(tx: optax.GradientTransformation, dtype: jnp.dtype) -> optax.GradientTransformation:
    """Keeps the moments of an optimiser in `dtype` between steps; it computes in float32."""
    if dtype == jnp.float32:
        return tx

    def cast(state: Any, dtype: jnp.dtype) -> Any:
        return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = tx.update(updates, cast(state, jnp.dtype(jnp.float32)), params)
        return updates, cast(state, dtype)

    return optax.GradientTransformation(lambda params: cast(tx.init(params), dtype), update)


def learning_rate_schedule(config: OptimizerConfig, loop: LoopConfig) -> optax.Schedule:
    """Linear warm-up to the peak, then cosine decay to zero at the last step."""
    return optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup_steps, loop.num_steps, 0.0
    )


def _adamw(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW, with weight decay for matrices but not for vectors (biases, norms, one-row tables)."""
    return optax.adamw(
        schedule,
        b1=config.b1,
        b2=config.b2,
        weight_decay=config.weight_decay,
        mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
    )


def _muon(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Muon orthogonalises the updates of the blocks' matrices (Jordan et al. 2024); Adam updates the rest.

    Only those matrices have weight decay. Their updates are scaled to Adam's usual RMS (0.2 per weight, Liu
    et al. 2025), so that one learning rate suits both. The AOL preconditioner normalises better than division
    by the norm (Boissin et al. 2025), which saves one of the usual five Newton-Schulz steps.
    """
    return optax.contrib.muon(
        schedule,
        ns_steps=4,
        preconditioning="aol",
        consistent_rms=0.2,
        weight_decay=config.weight_decay,
        adam_b1=config.b1,
        adam_b2=config.b2,
        muon_weight_dimension_numbers=_block_matrices,
    )


def _block_matrices(params: Params) -> Any:
    """Input and output axes of the blocks' matrices; None for all other parameters."""

    def axes(path: Any, x: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        names = jax.tree_util.keystr(path, simple=True, separator=".").split(".")
        # [depth, input, output]
        stacked = not {"blocks", "top_blocks"}.isdisjoint(names) and "kernel" in names
        return optax.contrib.MuonDimensionNumbers(1, 2) if stacked else None

    return jax.tree.map_with_path(axes, params)


def _of_instruction(params: Params) -> Any:
    """Mask of the instruction encoder's parameters."""
    return jax.tree.map_with_path(lambda path, _: getattr(path[0], "key", None) == "instruction", params)
