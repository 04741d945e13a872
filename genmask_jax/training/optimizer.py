"""Optimisers: AdamW, or Muon for the blocks' matrices. Both share the schedule and gradient clipping."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from genmask_jax.config import LoopConfig, OptimizerConfig
from genmask_jax.parameters.names import is_block_kernel, is_matrix, parameter_name

Params = Any


def make_optimizer(config: OptimizerConfig, loop: LoopConfig) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW or Muon, with a lower learning rate for the instruction encoder.

    Weight decay is for matrices alone (`parameters.names.is_matrix`), adapters' among them; biases, norms,
    tables and embeddings have none. (A rare token's embedding would decay without gradients to restore it.)

    At the DiT's learning rate, the instruction encoder's noisy first steps erase the differences between
    words.
    """
    make = {"adamw": _adam, "muon": _muon}[config.name]
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        _moments_in(make(config), jnp.dtype(config.moments_dtype)),
        optax.add_decayed_weights(config.weight_decay, mask=_matrices),
        optax.scale_by_learning_rate(learning_rate_schedule(config, loop)),
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
    """Linear warm-up, in at most a quarter of the run, then cosine decay to zero at the last step."""
    warmup_steps = min(config.warmup_steps, loop.num_steps // 4)
    return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup_steps, loop.num_steps, 0.0)


def _adam(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=config.b1, b2=config.b2)


def _muon(config: OptimizerConfig) -> optax.GradientTransformation:
    """Muon orthogonalises the updates of the blocks' matrices (Jordan et al. 2024); Adam updates the rest.

    Their updates are scaled to Adam's usual RMS (0.2 per weight, Liu
    et al. 2025), so that one learning rate suits both. The AOL preconditioner normalises better than division
    by the norm (Boissin et al. 2025), which saves one of the usual five Newton-Schulz steps.
    """
    return optax.contrib.muon(
        -1.0,  # the direction itself: decay and learning rate follow
        ns_steps=4,
        preconditioning="aol",
        consistent_rms=0.2,
        adam_b1=config.b1,
        adam_b2=config.b2,
        muon_weight_dimension_numbers=_block_matrices,
    )


def _block_matrices(params: Params) -> Any:
    """Input and output axes of the blocks' matrices [depth, input, output]; None for all other parameters.

    Adapters are narrow, and are left to Adam.
    """

    def axes(path: Any, _: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        return optax.contrib.MuonDimensionNumbers(1, 2) if is_block_kernel(parameter_name(path)) else None

    return jax.tree.map_with_path(axes, params)


def _matrices(params: Params) -> Any:
    """Mask of the matrices."""
    return jax.tree.map_with_path(lambda path, _: is_matrix(parameter_name(path)), params)


def _of_instruction(params: Params) -> Any:
    """Mask of the instruction encoder's parameters."""
    return jax.tree.map_with_path(lambda path, _: getattr(path[0], "key", None) == "instruction", params)
