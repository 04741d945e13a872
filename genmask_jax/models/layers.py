"""Layers shared by the transformers: norms, MLPs, rotary and timestep embeddings, stacked blocks."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from genmask_jax.models.attention import CHECKPOINT_NAME
from genmask_jax.sharding import constrain_batch, gather_layer, is_counting

xavier = nnx.initializers.xavier_uniform()


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU with the tanh approximation, as in Wan 2.1."""
    return jax.nn.gelu(x, approximate=True)


def exact_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU without approximation, as in BERT and Qwen's vision tower."""
    return jax.nn.gelu(x, approximate=False)


def layer_norm(x: Float[Array, "... D"], eps: float = 1e-6) -> Float[Array, "... D"]:
    """LayerNorm without parameters, in float32; the caller scales, shifts and casts the result."""
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
    """nnx.Linear on all tokens as one matrix: on CPUs, its gradient is faster than with several axes.

    With `lora_rank`, a low-rank adapter (Hu et al. 2021) is added: x W + b + x A B. A is random, B starts at
    zero, and both are float32. There is no scaling factor (alpha equals the rank).
    """

    def __init__(
        self, inputs: int, outputs: int, *, lora_rank: int = 0, dtype: Any, rngs: nnx.Rngs, **options
    ):
        super().__init__(inputs, outputs, dtype=dtype, rngs=rngs, **options)
        if lora_rank:
            self.lora = nnx.LoRA(inputs, lora_rank, outputs, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        rows = x.reshape(-1, x.shape[-1])
        y = super().__call__(rows)
        if hasattr(self, "lora"):
            y = y + self.lora(rows)
        return y.reshape(*x.shape[:-1], -1)


def project(x: Float[Array, "... I"], *layers: Linear) -> list[Float[Array, "... O"]]:
    """The outputs of several layers for one input, by one matrix product.

    One wide product is faster than several narrow ones, especially for the gradients of the weights. Layers
    with adapters are applied one by one.
    """
    if any(hasattr(layer, "lora") for layer in layers):
        return [layer(x) for layer in layers]
    dtype = layers[0].dtype
    kernel, bias = (
        jnp.concatenate([getattr(layer, name)[...].astype(dtype) for layer in layers], axis=-1)
        for name in ("kernel", "bias")
    )
    y = x.reshape(-1, x.shape[-1]).astype(dtype) @ kernel + bias
    ends = np.cumsum([layer.kernel.shape[1] for layer in layers])
    return jnp.split(y.reshape(*x.shape[:-1], -1), ends[:-1].tolist(), axis=-1)


def linear_factory(dtype: Any, param_dtype: Any, rngs: nnx.Rngs, lora_rank: int = 0) -> Callable[..., Linear]:
    """(inputs, outputs, use_bias=True) -> a linear layer.

    Args:
        dtype: dtype of the matrix product.
        param_dtype: dtype of the weights; adapters are float32.
        rngs: PRNG keys of the weights.
        lora_rank: rank of the adapters; 0 for none.
    """
    options = {"dtype": dtype, "param_dtype": param_dtype, "lora_rank": lora_rank, "rngs": rngs}

    def linear(inputs: int, outputs: int, use_bias: bool = True) -> Linear:
        return Linear(inputs, outputs, use_bias=use_bias, kernel_init=xavier, **options)

    return linear


class MLP(nnx.Module):
    """Linear, activation, linear. `linear` is from `linear_factory`."""

    def __init__(self, sizes: tuple[int, int, int], activation, *, linear):
        self.linear_1 = linear(sizes[0], sizes[1])
        self.linear_2 = linear(sizes[1], sizes[2])
        self.activation = activation

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        return self.linear_2(self.activation(self.linear_1(x)))


def rotary_table(
    head_dim: int, grid: tuple[int, int, int], theta: float = 1e4
) -> tuple[Float[Array, "N half"], Float[Array, "N half"]]:
    """Cosines and sines of 3-D rotary positions, with a head's channels split as in Wan 2.1.

    Rows and columns get 2 * (head_dim // 6) channels each, frames the rest (44/42/42 of 128). Within each
    part, the frequencies are theta^(-2i / part).

    Args:
        head_dim: channels of one head.
        grid: (frames, rows, columns) of tokens; tokens are numbered in that order.
        theta: base of the frequencies.

    Returns:
        Two float32 arrays `[N, head_dim / 2]`, N = frames * rows * columns.
    """
    part = 2 * (head_dim // 6)
    angles = []  # per axis, in float64 like the reference: small constants in the program
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
    x: Float[Array, "B N H D"], table: tuple[Float[Array, "N half"], Float[Array, "N half"]]
) -> Float[Array, "B N H D"]:
    """Rotates interleaved channel pairs (2i, 2i + 1) by the angles of `rotary_table`."""
    cos, sin = (part[None, :, None, :] for part in table)
    even, odd = x[..., 0::2].astype(jnp.float32), x[..., 1::2].astype(jnp.float32)
    rotated = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return rotated.reshape(x.shape).astype(x.dtype)


def sinusoid(t: Float[Array, "..."], features: int, max_period: float = 1e4) -> Float[Array, "... features"]:
    """Sinusoidal embedding, cosines first and then sines, as in Wan 2.1 (flip_sin_to_cos in diffusers)."""
    half = features // 2
    # The exponents are rounded to float32 like the reference's; at t = 1000 this affects the fourth digit.
    exponents = np.float32(-math.log(max_period)) * np.arange(half, dtype=np.float32) / np.float32(half)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = t[..., None].astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


REMAT = {
    "none": jax.checkpoint_policies.everything_saveable,
    "matrices": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(CHECKPOINT_NAME),
    ),
    "attention": jax.checkpoint_policies.save_only_these_names(CHECKPOINT_NAME),
    "all": jax.checkpoint_policies.nothing_saveable,
}
"""What each block saves for the backward pass, from most to least: everything; the results of matrix products
and attention; the results of attention; only the input of the block."""


def stack(make: Callable[[nnx.Rngs], nnx.Module], depth: int, rngs: nnx.Rngs) -> nnx.Module:
    """`depth` modules from `make`, as one module whose parameters have a leading axis [depth, ...]."""

    @nnx.split_rngs(splits=depth)
    @nnx.vmap(in_axes=(0,), out_axes=0)
    def make_all(rngs: nnx.Rngs) -> nnx.Module:
        return make(rngs)

    return make_all(rngs)


def scan_blocks(
    blocks: nnx.Module,
    *streams: tuple[Any, ...],
    each: Any = None,
    remat: str = "none",
    unroll: bool = False,
    keep: Sequence[int | None] = (),
) -> list[Array]:
    """x = block(x, *args) for each block of a `stack`, compiled once for any depth (unless unrolled).

    Several streams of any shapes pass through each block together, so that sharded weights are gathered once,
    and their gradients are summed once.

    Args:
        blocks: blocks from `stack`.
        streams: tuples (x, *args): the input of the first block, and further arguments of every block.
        each: `[depth]`; each block receives its own element as the last argument. None for no such argument.
        remat: what the backward pass recomputes: a key of `REMAT`.
        unroll: compile each block separately; on a CPU, a few blocks then run a quarter faster.
        keep: for each stream, the number of leading tokens to return, or None for all. If the blocks are
            unrolled, the last block receives it as `keep`, and computes only these tokens.
    """
    graph, state = nnx.split(blocks)

    def body(xs, layer, keep=()):
        layer, own = layer
        block = nnx.merge(graph, gather_layer(layer, state))
        xs = [constrain_batch(x) for x in xs]
        last = () if own is None else (own,)
        options = [{"keep": count} for count in keep] if keep else [{}] * len(xs)
        xs = [block(x, *args, *last, **kw) for x, (_, *args), kw in zip(xs, streams, options, strict=True)]
        return [constrain_batch(x) for x in xs], None

    xs = [x for x, *_ in streams]
    if is_counting() and each is not None:  # as constants, so that each block knows its own element
        with jax.ensure_compile_time_eval():
            each = [jnp.asarray(own) for own in each]
        unroll = True
    last_body = functools.partial(body, keep=keep)
    if remat != "none" and not is_counting():
        rematerialized = functools.partial(jax.checkpoint, prevent_cse=False, policy=REMAT[remat])
        body, last_body = rematerialized(body), rematerialized(last_body)
    if unroll:
        layers = _layers(state)
        *layers, last = zip(layers, [None] * len(layers) if each is None else each, strict=True)
        for layer in layers:
            xs, _ = body(xs, layer)
        xs, _ = last_body(xs, last)
    else:
        xs, _ = jax.lax.scan(body, xs, (state, each))
    return [x[:, :count] for x, count in zip(xs, keep or [None] * len(xs), strict=True)]


@jax.custom_vjp
def _layers(stacked: Any) -> list[Any]:
    """Splits arrays `[depth, ...]` into `depth` trees, whose gradients are stacked in one operation."""
    return [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(len(jax.tree.leaves(stacked)[0]))]


_layers.defvjp(
    lambda stacked: (_layers(stacked), None),
    lambda _, gradients: (jax.tree.map(lambda *layers: jnp.stack(layers), *gradients),),
)
