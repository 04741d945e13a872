"""Softmax attention, by the kernel that suits the devices: splash on TPUs, cuDNN on GPUs, our own elsewhere.

All three compute the same; `tests/models/test_attention.py` compares them.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask
from jaxtyping import Array, Bool, Float

from genmask_jax.sharding import over_examples_and_heads, tracing_for

SAVED = "attention"
"""Name of what the backward pass wants of an attention's forward pass, for policies of rematerialisation.
cuDNN's kernels do not name it, so that under any policy their forward pass is computed anew."""
TILE = 128
"""Splash works on tiles of this side, and every cuDNN takes heads of up to as many channels."""
EVEN = 8
"""Lengths that cuDNN is given are multiples of it."""
KERNEL_LENGTH = 256
"""Fewer queries are not worth a kernel."""


def attend(
    query: Float[Array, "B N H D"],
    key: Float[Array, "B M K D"],
    value: Float[Array, "B M K D"],
    mask: Bool[Array, "B M"] | Bool[Array, "B N M"] | None = None,
) -> Float[Array, "B N H D"]:
    """Softmax attention; keys where `mask` is False are left out. Scores and softmax are float32.

    Where there are fewer heads of keys than of queries (K divides H), each serves H / K neighbouring heads of
    queries (grouped-query attention, Ainslie et al. 2023). Every query has a key that it may attend to. There
    is no forward-mode derivative.
    """
    length, heads, width = query.shape[1:]
    simple = heads == key.shape[2] and (mask is None or mask.ndim == 2) and length >= KERNEL_LENGTH
    platform = tracing_for()
    if simple and platform == "tpu" and width % TILE == 0:
        mapped = over_examples_and_heads(attend_by_splash, query.shape)
        if mapped is not None:
            return mapped(query, key, value, mask)
    if simple and platform == "gpu" and query.dtype.itemsize == 2 and width % 8 == 0 and width <= TILE:
        return attend_by_cudnn(query, key, value, mask)
    return attend_by_xla(query, key, value, mask)


def attend_by_splash(query, key, value, mask, *, interpret: bool = False):
    """By the TPU's splash kernels, forward and backward; the scores never leave the core's own memory.

    Padding to whole tiles, and keys that are left out, are of another segment than the queries.
    """
    batch, length, heads, width = query.shape
    mask = jnp.ones(key.shape[:2], bool) if mask is None else mask
    query, key, value = (_pad_to(x, TILE).swapaxes(1, 2) for x in (query * width**-0.5, key, value))
    rows, columns = query.shape[2], key.shape[2]
    segments = splash.SegmentIds(jnp.ones((batch, rows), jnp.int32), _pad_to(mask.astype(jnp.int32), TILE))
    out = jax.vmap(_splash_kernel(heads, rows, columns, interpret))(query, key, value, segments)
    return out.swapaxes(1, 2)[:, :length]


def _pad_to(x: Array, multiple: int) -> Array:
    """Zeros (False) behind the second axis, so that it becomes a multiple."""
    return jnp.pad(x, [(0, 0), (0, -x.shape[1] % multiple)] + [(0, 0)] * (x.ndim - 2))


def _splash_kernel(heads: int, rows: int, columns: int, interpret: bool) -> splash.SplashAttentionKernel:
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
        residual_checkpoint_name=SAVED,
        interpret=interpret,
    )


def attend_by_cudnn(query, key, value, mask):
    """By cuDNN's fused kernels, for 16-bit floats on GPUs; their gradient wants even lengths."""
    length = query.shape[1]
    if mask is None and key.shape[1] % EVEN:
        mask = jnp.ones(key.shape[:2], bool)
    if mask is not None:
        mask = _pad_to(mask, EVEN)[:, None, None]
    query, key, value = (_pad_to(x, EVEN) for x in (query, key, value))
    out = jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="cudnn")
    return out[:, :length]


def attend_by_xla(query, key, value, mask):
    """By matrix products.

    The backward pass computes the weights anew (Dao et al. 2022, without the tiling), so that of all that is
    as large as the scores nothing is kept. To a head of keys, the queries of several heads are just more
    queries.
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
    largest, total, out = (checkpoint_name(x, SAVED) for x in (largest, total, out))
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
