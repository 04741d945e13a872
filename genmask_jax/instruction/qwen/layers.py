"""Layers of both the language model and the vision tower."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

Table = tuple[Float[Array, "B N half"], Float[Array, "B N half"]]
"""Cosines and sines of rotary positions, float32."""


class GatedMLP(nnx.Module):
    """down(silu(gate x) * up x) (SwiGLU, Shazeer 2020)."""

    def __init__(self, size: int, ffn_size: int, *, use_bias: bool, linear):
        self.gate_proj = linear(size, ffn_size, use_bias)
        self.up_proj = linear(size, ffn_size, use_bias)
        self.down_proj = linear(ffn_size, size, use_bias)

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))


def frequencies(channels: int, theta: float) -> np.ndarray:
    """Rotary frequencies theta^(-2i / channels), float32 `[channels / 2]`, rounded as in transformers."""
    exponents = np.arange(0, channels, 2, dtype=np.float32) / np.float32(channels)
    return np.float32(1) / np.float32(theta) ** exponents


def rotary_table(positions: Int[Array, "B N A"], parts: tuple[np.ndarray, ...]) -> Table:
    """Cosines and sines of the angles position x frequency, concatenated over the axes.

    Args:
        positions: position of each token along each of A axes.
        parts: frequencies of each axis; D / 2 in total.
    """
    angles = [positions[..., axis, None].astype(jnp.float32) * part for axis, part in enumerate(parts)]
    angles = jnp.concatenate(angles, axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def rotate_halves(x: Float[Array, "B N H D"], table: Table) -> Float[Array, "B N H D"]:
    """Rotates channel pairs (i, i + D / 2) by the angles of `rotary_table`."""
    cos, sin = (part[:, :, None] for part in table)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
