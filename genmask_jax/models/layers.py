"""Layers that the transformers share: norms, attention, rotary positions, stacked blocks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

xavier = nnx.initializers.xavier_uniform()


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU by its tanh approximation, as Wan 2.1 has it."""
    return jax.nn.gelu(x, approximate=True)


def layer_norm(x: Float[Array, "... D"], eps: float = 1e-6) -> Float[Array, "... D"]:
    """LayerNorm without parameters, computed in float32; the caller scales, shifts and casts."""
    x = x.astype(jnp.float32)
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + eps)


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis with a learned scale, in float32."""

    def __init__(self, features: int, *, eps: float = 1e-6):
        self.scale = nnx.Param(jnp.ones((features,)))
        self.eps = eps

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps)
        return (y * self.scale[...]).astype(x.dtype)


class Linear(nnx.Linear):
    """nnx.Linear over all tokens as one matrix: its gradient is faster on CPUs than over several axes."""

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


class MLP(nnx.Module):
    """linear, activation, linear."""

    def __init__(self, sizes: tuple[int, int, int], activation, *, dtype, rngs: nnx.Rngs):
        self.linear_1 = Linear(sizes[0], sizes[1], dtype=dtype, kernel_init=xavier, rngs=rngs)
        self.linear_2 = Linear(sizes[1], sizes[2], dtype=dtype, kernel_init=xavier, rngs=rngs)
        self.activation = activation

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        return self.linear_2(self.activation(self.linear_1(x)))


def rotary_table(
    head_dim: int, grid: tuple[int, int, int], theta: float = 1e4
) -> tuple[Float[Array, "N D/2"], Float[Array, "N D/2"]]:
    """Cosines and sines of 3-D rotary positions, as Wan 2.1 splits a head's channels.

    Rows and columns take 2 * (head_dim // 6) channels each, frames the rest (44/42/42 of 128); within each
    part the frequencies are theta^(-2i / part).

    Args:
        head_dim: channels of one head.
        grid: (frames, rows, columns) of tokens; tokens are numbered in that order.
        theta: base of the frequencies.

    Returns:
        Two float32 arrays `[N, head_dim / 2]`, N = frames * rows * columns.
    """
    part = 2 * (head_dim // 6)
    angles = []
    positions = jnp.meshgrid(*(jnp.arange(n) for n in grid), indexing="ij")
    for position, channels in zip(positions, (head_dim - 2 * part, part, part), strict=True):
        frequencies = theta ** (-jnp.arange(0, channels, 2, dtype=jnp.float32) / channels)
        angles.append(position.reshape(-1, 1) * frequencies)
    angles = jnp.concatenate(angles, axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "B N H D"], table: tuple[Float[Array, "N D/2"], Float[Array, "N D/2"]]
) -> Float[Array, "B N H D"]:
    """Turns interleaved channel pairs (2i, 2i + 1) by the angles of `rotary_table`."""
    cos, sin = (part[None, :, None, :] for part in table)
    even, odd = x[..., 0::2].astype(jnp.float32), x[..., 1::2].astype(jnp.float32)
    turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)


def attend(
    query: Float[Array, "B N H D"],
    key: Float[Array, "B M H D"],
    value: Float[Array, "B M H D"],
    mask: Bool[Array, "B M"] | None = None,
) -> Float[Array, "B N H D"]:
    """Softmax attention; keys where `mask` is False are left out. Scores and softmax are float32."""
    scores = jnp.einsum("bnhd,bmhd->bhnm", query, key, preferred_element_type=jnp.float32)
    scores *= query.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bhnm,bmhd->bnhd", weights, value)


def sinusoid(t: Float[Array, "..."], features: int, max_period: float = 1e4) -> Float[Array, "... features"]:
    """Sinusoidal embedding, cosines first and then sines, as Wan 2.1 (and diffusers, flip_sin_to_cos)."""
    half = features // 2
    frequencies = jnp.exp(-jnp.log(max_period) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = t[..., None].astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def stack(make: Callable[[nnx.Rngs], nnx.Module], depth: int, rngs: nnx.Rngs) -> nnx.Module:
    """`depth` modules made alike, as one module whose parameters carry a leading axis [depth, ...]."""

    @nnx.split_rngs(splits=depth)
    @nnx.vmap(in_axes=(0,), out_axes=0)
    def make_all(rngs: nnx.Rngs) -> nnx.Module:
        return make(rngs)

    return make_all(rngs)


def scan_blocks(blocks: nnx.Module, x: Array, *args: Any, remat: bool = False, unroll: bool = False) -> Array:
    """x = block(x, *args) for each block of a `stack`, compiled once whatever the depth (unless unrolled).

    Args:
        blocks: made by `stack`.
        x: what flows through the blocks.
        args: given to every block alike.
        remat: recompute a block's activations in the backward pass instead of keeping them.
        unroll: compile every block on its own; a few blocks run a quarter faster so on a CPU.
    """
    graph, state = nnx.split(blocks)

    def body(x, block_state):
        return nnx.merge(graph, block_state)(x, *args), None

    if remat:
        body = jax.checkpoint(body, prevent_cse=False)
    return jax.lax.scan(body, x, state, unroll=unroll)[0]
