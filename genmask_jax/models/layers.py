"""Layers that the transformers share: norms, attention, rotary positions, stacked blocks."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from genmask_jax.sharding import constrain_batch, constrain_layer

xavier = nnx.initializers.xavier_uniform()


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU by its tanh approximation, as Wan 2.1 has it."""
    return jax.nn.gelu(x, approximate=True)


def exact_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU without approximation, as BERT and Qwen's vision tower have it."""
    return jax.nn.gelu(x, approximate=False)


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
    angles = []  # of each axis alone, in float64 as the reference has them: small constants of the program
    for axis, channels in enumerate((head_dim - 2 * part, part, part)):
        frequencies = theta ** (-np.arange(0, channels, 2) / channels)
        shape = [1, 1, 1, len(frequencies)]
        shape[axis] = grid[axis]
        angles.append(np.outer(np.arange(grid[axis]), frequencies).reshape(shape))

    def table(function: np.ufunc) -> Array:
        parts = [function(part).astype(np.float32) for part in angles]
        parts = [jnp.broadcast_to(part, (*grid, part.shape[-1])) for part in parts]
        return jnp.concatenate(parts, axis=-1).reshape(math.prod(grid), -1)

    return table(np.cos), table(np.sin)


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
    key: Float[Array, "B M K D"],
    value: Float[Array, "B M K D"],
    mask: Bool[Array, "B M"] | Bool[Array, "B N M"] | None = None,
) -> Float[Array, "B N H D"]:
    """Softmax attention; keys where `mask` is False are left out. Scores and softmax are float32.

    Where there are fewer heads of keys than of queries (K divides H), each serves H / K neighbouring heads of
    queries (grouped-query attention, Ainslie et al. 2023); to it they are just more queries.

    The backward pass computes the weights anew (Dao et al. 2022, without the tiling), so that of all that is
    as large as the scores nothing is kept. It has no forward-mode derivative.
    """
    batch, length, heads, width = query.shape
    groups = heads // key.shape[2]
    if mask is not None:
        mask = mask[:, None] if mask.ndim == 2 else jnp.repeat(mask, groups, axis=1)
        mask = mask[:, None]
    query = (query * width**-0.5).reshape(batch, length, -1, groups, width)
    query = query.swapaxes(2, 3).reshape(batch, length * groups, -1, width)
    out = _attend(*(x.swapaxes(1, 2) for x in (query, key, value)), mask).swapaxes(1, 2)
    return out.reshape(batch, length, groups, -1, width).swapaxes(2, 3).reshape(batch, length, heads, width)


@jax.custom_vjp
def _attend(query, key, value, mask):
    """softmax(query key^T) value, all `[B, H, N, D]`, mask `[B, 1, N or 1, M]`, its gradient written out."""
    return _attend_forward(query, key, value, mask)[0]


def _scores(query, key, mask):
    scores = jnp.einsum("bhnd,bhmd->bhnm", query, key, preferred_element_type=jnp.float32)
    return scores if mask is None else jnp.where(mask, scores, _NEVER)


def _attend_forward(query, key, value, mask):
    scores = _scores(query, key, mask)
    largest = scores.max(-1, keepdims=True)
    weights = jnp.exp(scores - largest)
    total = weights.sum(-1, keepdims=True)
    out = jnp.einsum(
        "bhnm,bhmd->bhnd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    out = (out / total).astype(value.dtype)
    return out, (query, key, value, mask, largest, total, out)


def _attend_backward(saved, gradient):
    query, key, value, mask, largest, total, out = saved
    gradient = gradient.astype(jnp.float32) / total
    inner = (gradient * out).sum(-1, keepdims=True)
    gradient = gradient.astype(value.dtype)
    weights = jnp.exp(_scores(query, key, mask) - largest)
    d_weights = jnp.einsum("bhnd,bhmd->bhnm", gradient, value, preferred_element_type=jnp.float32)
    d_scores = (weights * (d_weights - inner)).astype(value.dtype)
    if mask is not None:  # where nothing is left to attend to, the weights are not zero
        d_scores = jnp.where(mask, d_scores, 0)
    d_query = jnp.einsum("bhnm,bhmd->bhnd", d_scores, key)
    # Transposing the narrow factor is twice as fast on CPUs as contracting over the wide one's rows.
    d_key = jnp.einsum("bhdn,bhnm->bhdm", query.swapaxes(2, 3), d_scores)
    d_value = jnp.einsum("bhdn,bhnm->bhdm", gradient.swapaxes(2, 3), weights.astype(value.dtype))
    return d_query, d_key.swapaxes(2, 3), d_value.swapaxes(2, 3), None


_attend.defvjp(_attend_forward, _attend_backward)
_NEVER = jnp.finfo(jnp.float32).min


def sinusoid(t: Float[Array, "..."], features: int, max_period: float = 1e4) -> Float[Array, "... features"]:
    """Sinusoidal embedding, cosines first and then sines, as Wan 2.1 (and diffusers, flip_sin_to_cos)."""
    half = features // 2
    # The exponents are rounded to float32 as the reference's are; at t = 1000 that shows in the fourth digit.
    exponents = np.float32(-math.log(max_period)) * np.arange(half, dtype=np.float32) / np.float32(half)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = t[..., None].astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def stack(make: Callable[[nnx.Rngs], nnx.Module], depth: int, rngs: nnx.Rngs) -> nnx.Module:
    """`depth` modules made alike, as one module whose parameters carry a leading axis [depth, ...]."""

    @nnx.split_rngs(splits=depth)
    @nnx.vmap(in_axes=(0,), out_axes=0)
    def make_all(rngs: nnx.Rngs) -> nnx.Module:
        return make(rngs)

    return make_all(rngs)


def scan_blocks(
    blocks: nnx.Module,
    x: Array,
    *args: Any,
    remat: bool = False,
    constrain: bool = False,
    unroll: bool = False,
) -> Array:
    """x = block(x, *args) for each block of a `stack`, compiled once whatever the depth (unless unrolled).

    Args:
        blocks: made by `stack`.
        x: what flows through the blocks.
        args: given to every block alike.
        remat: recompute a block's activations in the backward pass instead of keeping them.
        constrain: keep activations divided by examples, and gradients as parameters are, on the mesh that the
            program is traced for. Pays where blocks are trained.
        unroll: compile every block on its own; a few blocks run a quarter faster so on a CPU.
    """
    graph, state = nnx.split(blocks)

    def body(x, block_state):
        if not constrain:
            return nnx.merge(graph, block_state)(x, *args), None
        x = nnx.merge(graph, constrain_layer(block_state, state))(constrain_batch(x), *args)
        return constrain_batch(x), None

    if remat:
        body = jax.checkpoint(body, prevent_cse=False)
    return jax.lax.scan(body, x, state, unroll=unroll)[0]
