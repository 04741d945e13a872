"""Softmax attention with a kernel per platform: splash on TPUs, cuDNN on GPUs, matrix products elsewhere.

All three have the same result; `tests/models/test_attention.py` compares them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epy
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from genmask_jax.sharding import is_counting, over_examples_and_heads, tracing_for

with epy.lazy_imports():  # only for TPUs
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask

CHECKPOINT_NAME = "attention"
"""Name of the values that attention saves for its backward pass, for checkpoint (remat) policies.
cuDNN's kernels do not use this name, so any such policy recomputes their forward pass."""
TILE = 128
"""Side of splash's tiles, and the largest head dimension that cuDNN supports on all cards."""
CUDNN_MULTIPLE = 8
"""cuDNN's head dimensions are multiples of this, and sequences are padded to multiples of it."""
AMPERE = (8, 0)
"""Compute capability of the first cards that cuDNN's fused kernels support."""
MIN_KERNEL_LENGTH = 256
"""Number of queries from which a fused kernel is faster."""


def attend(
    query: Float[Array, "B N H D"],
    key: Float[Array, "B M K D"],
    value: Float[Array, "B M K D"],
    mask: Bool[Array, "B M"] | Bool[Array, "B N M"] | None = None,
    *,
    causal: bool = False,
) -> Float[Array, "B N H D"]:
    """Softmax attention; keys where `mask` is False are ignored. Scores and softmax are float32.

    If there are fewer key heads than query heads (K divides H), each key head serves H / K neighbouring query
    heads (grouped-query attention, Ainslie et al. 2023). Every query must have at least one key to attend to.
    Forward-mode differentiation is not supported.

    Args:
        query, key, value: 16- or 32-bit floats.
        mask: `[B, M]` leaves out padding: True for the first keys of an example, False for the others.
            `[B, N, M]` leaves out any keys of a query.
        causal: whether query n only attends to the first n + 1 keys.
    """
    kernel = _kernel(query, key, mask, causal)
    mapped = kernel and over_examples_and_heads(kernel, query.shape, key.shape)
    return (mapped or functools.partial(attend_by_xla, causal=causal))(query, key, value, mask)


def _kernel(query: Array, key: Array, mask: Array | None, causal: bool) -> Callable[..., Array] | None:
    """The fused kernel of the platform, if it supports these arrays and is faster."""
    length, heads, width = query.shape[1:]
    if length < MIN_KERNEL_LENGTH or (mask is not None and mask.ndim == 3):
        return None
    platform, capability = tracing_for()
    if platform == "tpu" and heads == key.shape[2] and width % TILE == 0 and not causal:
        return attend_by_splash
    fits = query.dtype.itemsize == 2 and width % CUDNN_MULTIPLE == 0 and width <= TILE
    if platform == "gpu" and fits and capability >= AMPERE:
        return functools.partial(attend_by_cudnn, causal=causal)
    return None


def attend_by_splash(query, key, value, mask, *, interpret: bool = False):
    """Attention by the TPU's splash kernels, whose scores never leave on-chip memory.

    Masked keys, and the padding to whole tiles, have a segment id that no query has.
    """
    batch, length, heads, width = query.shape
    mask = jnp.ones(key.shape[:2], bool) if mask is None else mask
    query, key, value = (_pad_to(x, TILE).swapaxes(1, 2) for x in (query * width**-0.5, key, value))
    rows, columns = query.shape[2], key.shape[2]
    segments = splash.SegmentIds(jnp.ones((batch, rows), jnp.int32), _pad_to(mask.astype(jnp.int32), TILE))
    kernel: Any = _splash_kernel(heads, rows, columns, interpret)
    out = jax.vmap(kernel)(query, key, value, segments)
    return out.swapaxes(1, 2)[:, :length]


def _pad_to(x: Array, multiple: int) -> Array:
    """Pads the end of the second axis with zeros (False), to a multiple."""
    return jnp.pad(x, [(0, 0), (0, -x.shape[1] % multiple)] + [(0, 0)] * (x.ndim - 2))


def _splash_kernel(heads: int, rows: int, columns: int, interpret: bool) -> Any:
    block_q, block_kv = (next(b for b in (512, 256, TILE) if n % b == 0) for n in (rows, columns))
    blocks = splash.BlockSizes(
        block_q=block_q,
        block_kv=block_kv,
        block_q_dkv=block_q,
        block_kv_dkv=block_kv,
        block_q_dq=block_q,
        block_kv_dq=block_kv,
    )
    return splash.make_splash_mha_single_device(
        splash_mask.MultiHeadMask([splash_mask.FullMask((rows, columns))] * heads),
        block_sizes=blocks,
        residual_checkpoint_name=CHECKPOINT_NAME,
        interpret=interpret,
    )


def attend_by_cudnn(query, key, value, mask, *, causal: bool = False):
    """Attention by cuDNN's fused kernels, for 16-bit floats on GPUs; `mask` is `[B, M]` or None.

    Padding is left out by the number of keys: a bias would be as large as the scores.
    """
    length, lengths = query.shape[1], None
    if mask is not None:
        lengths = mask.sum(-1, dtype=jnp.int32)
    elif key.shape[1] % CUDNN_MULTIPLE:
        lengths = jnp.full(key.shape[0], key.shape[1], jnp.int32)
    query, key, value = (_pad_to(x, CUDNN_MULTIPLE) for x in (query, key, value))
    out = jax.nn.dot_product_attention(
        query, key, value, key_value_seq_lengths=lengths, is_causal=causal, implementation="cudnn"
    )
    return out[:, :length]


def attend_by_xla(query, key, value, mask, *, causal: bool = False):
    """Attention by matrix products.

    The backward pass recomputes the weights (as in Dao et al. 2022, without tiling), so that nothing as large
    as the scores is saved. Query heads that share a key head become additional queries of one head.
    """
    batch, length, heads, width = query.shape
    groups = heads // key.shape[2]
    if causal:
        before = jnp.broadcast_to(np.tri(length, key.shape[1], dtype=bool), (batch, length, key.shape[1]))
        mask = before if mask is None else before & (mask[:, None] if mask.ndim == 2 else mask)
    if mask is not None:
        mask = mask[:, None] if mask.ndim == 2 else jnp.repeat(mask, groups, axis=1)
        mask = mask[:, None]
    query = (query * width**-0.5).reshape(batch, length, -1, groups, width)
    query = query.swapaxes(2, 3).reshape(batch, length * groups, -1, width)
    attend_heads: Any = _attend_keeping_all if is_counting() else _attend
    out = attend_heads(*(x.swapaxes(1, 2) for x in (query, key, value)), mask).swapaxes(1, 2)
    return out.reshape(batch, length, groups, -1, width).swapaxes(2, 3).reshape(batch, length, heads, width)


@jax.custom_vjp
def _attend(query, key, value, mask):
    """softmax(query key^T) value with a custom gradient; all `[B, H, N, D]`, mask `[B, 1, N or 1, M]`."""
    return _attend_forward(query, key, value, mask)[0]


def _scores(query, key, mask):
    scores = jnp.einsum("bhnd,bhmd->bhnm", query, key, preferred_element_type=jnp.float32)
    return scores if mask is None else jnp.where(mask, scores, _MASKED_SCORE)


def _attend_keeping_all(query, key, value, mask):
    """Like `_attend` with the gradient that JAX derives, which saves the weights and recomputes nothing."""
    weights = jax.nn.softmax(_scores(query, key, mask)).astype(value.dtype)
    return jnp.einsum("bhnm,bhmd->bhnd", weights, value)


def _attend_forward(query, key, value, mask):
    scores = _scores(query, key, mask)
    largest = scores.max(-1, keepdims=True)
    weights = jnp.exp(scores - largest)
    total = weights.sum(-1, keepdims=True)
    out = jnp.einsum(
        "bhnm,bhmd->bhnd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    out = (out / total).astype(value.dtype)
    largest, total, out = (checkpoint_name(x, CHECKPOINT_NAME) for x in (largest, total, out))
    return out, (query, key, value, mask, largest, total, out)


def _attend_backward(saved, gradient):
    query, key, value, mask, largest, total, out = saved
    gradient = gradient.astype(jnp.float32) / total
    inner = (gradient * out).sum(-1, keepdims=True)
    gradient = gradient.astype(value.dtype)
    weights = jnp.exp(_scores(query, key, mask) - largest)
    d_weights = jnp.einsum("bhnd,bhmd->bhnm", gradient, value, preferred_element_type=jnp.float32)
    d_scores = (weights * (d_weights - inner)).astype(value.dtype)
    if mask is not None:  # where all keys are masked, the weights are not zero
        d_scores = jnp.where(mask, d_scores, 0)
    d_query = jnp.einsum("bhnm,bhmd->bhnd", d_scores, key)
    # On CPUs, transposing the narrow factor is twice as fast as contracting over rows of the wide one.
    d_key = jnp.einsum("bhdn,bhnm->bhdm", query.swapaxes(2, 3), d_scores)
    d_value = jnp.einsum("bhdn,bhnm->bhdm", gradient.swapaxes(2, 3), weights.astype(value.dtype))
    return d_query, d_key.swapaxes(2, 3), d_value.swapaxes(2, 3), None


_attend.defvjp(_attend_forward, _attend_backward)
_MASKED_SCORE = jnp.finfo(jnp.float32).min
