"""The optimiser: AdamW, or Muon for the blocks' matrices; schedule and clipping are the same for both."""

from typing import Any

import jax
import optax
import optax.contrib

from genmask_jax.config import LoopConfig, OptimizerConfig

Params = Any


def make_optimizer(config: OptimizerConfig, loop: LoopConfig) -> optax.GradientTransformation:
    """Clipping by the global norm, AdamW or Muon, and a lower rate for the instruction encoder.

    The instruction encoder's updates are scaled down: at the DiT's rate its noisy first steps wash out what
    tells one word from another.
    """
    schedule = learning_rate_schedule(config, loop)
    make = {"adamw": _adamw, "muon": _muon}[config.name]
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        make(config, schedule),
        optax.masked(optax.scale(config.instruction_lr_scale), _of_instruction),
    )


def learning_rate_schedule(config: OptimizerConfig, loop: LoopConfig) -> optax.Schedule:
    """Linear warm-up to the peak, cosine to zero at the last step."""
    return optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup_steps, loop.num_steps, 0.0
    )


def _adamw(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Matrices decay, vectors (biases, norms, tables of one row) do not."""
    return optax.adamw(
        schedule,
        b1=config.b1,
        b2=config.b2,
        weight_decay=config.weight_decay,
        mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
    )


def _muon(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Updates of the blocks' matrices are made orthogonal (Jordan et al. 2024); Adam takes the rest.

    Only those matrices decay. Their updates have Adam's usual size (0.2 a weight, Liu et al. 2025), so that
    one learning rate suits both. The first Newton-Schulz step normalises better than division by the norm
    does (Boissin et al. 2025), which saves one of the usual five.
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
    """Which axes of a parameter are a matrix's input and output; None for what is no block's matrix."""

    def axes(path: Any, x: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        names = jax.tree_util.keystr(path, simple=True, separator=".").split(".")
        # [depth, input, output]
        stacked = not {"blocks", "top_blocks"}.isdisjoint(names) and "kernel" in names
        return optax.contrib.MuonDimensionNumbers(1, 2) if stacked else None

    return jax.tree.map_with_path(axes, params)


def _of_instruction(params: Params) -> Any:
    """Which parameters are the instruction encoder's."""
    return jax.tree.map_with_path(lambda path, _: getattr(path[0], "key", None) == "instruction", params)
