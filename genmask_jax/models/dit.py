"""The diffusion transformer of Wan 2.1 (`WanTransformer3DModel` in diffusers), in Flax NNX.

Frames are concatenated along the token axis: frame 0 is the noisy target; for segmentation, frame 1 is the
clean image. Each frame has its own timestep, so that the clean frame can have t = 0.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from genmask_jax.models.attention import attend
from genmask_jax.models.layers import (
    MLP,
    Linear,
    RMSNorm,
    gelu,
    layer_norm,
    linear_factory,
    project,
    rotary_table,
    rotate,
    scan_blocks,
    sinusoid,
    stack,
    xavier,
)
from genmask_jax.sharding import constrain_batch

_time_proj_init = nnx.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True)
class DiTConfig:
    """Shape of a DiT.

    hidden_size, depth, num_heads, ffn_size: dimensions of the transformer.
    channels: latent channels, in and out.
    patch_size: side of the square patch of latents that forms one token (frames are never merged).
    text_dim: channels of `text_embeds`.
    frequency_dim: channels of the sinusoidal timestep embedding.
    pooled_text: add a projection of the mean text embedding to the timestep embedding (like the pooled text
        of Stable Diffusion 3). Wan has no such projection.
    clean_embedding: add a learned vector to the tokens of all frames but the first. Wan has no such vector.
    rope_theta: base of the rotary frequencies; 1e4 as published. On a grid of a few tokens per side, most of
        those frequencies rotate too little to tell positions apart; a small base makes all of them useful.
    remat: rematerialisation in each block, to save memory: "none" recomputes nothing, "matrices" saves the
        results of matrix products and attention, "attention" those of attention, "all" recomputes everything.
    unroll: unroll the loop over blocks: faster on a CPU, slow to compile if there are many.
    lora_rank: rank of low-rank adapters on the attention and feed-forward matrices of blocks; 0 for none. The
        adapters are trained, and the weights of `config.init` are frozen.
    """

    hidden_size: int
    depth: int
    num_heads: int
    ffn_size: int
    channels: int = 16
    patch_size: int = 2
    text_dim: int = 4096
    frequency_dim: int = 256
    pooled_text: bool = False
    clean_embedding: bool = False
    rope_theta: float = 1e4
    remat: str = "none"
    unroll: bool = False
    lora_rank: int = 0


class Attention(nnx.Module):
    """Multi-head attention; queries and keys are RMS-normed before the split into heads."""

    def __init__(self, hidden_size: int, num_heads: int, *, linear):
        """`linear` is from `linear_factory`."""
        self.num_heads = num_heads
        self.to_q = linear(hidden_size, hidden_size)
        self.to_k = linear(hidden_size, hidden_size)
        self.to_v = linear(hidden_size, hidden_size)
        self.to_out = linear(hidden_size, hidden_size)
        self.norm_q = RMSNorm(hidden_size)
        self.norm_k = RMSNorm(hidden_size)

    def __call__(self, x, context=None, *, rotary=None, mask=None, keep=None):
        """x `[B, N, D]` attends to `context` `[B, M, D]` (to itself if None); `mask` `[B, M]` of keys.

        Returns the first `keep` tokens, or all if it is None.
        """
        if keep is None and context is None:
            query, key, value = project(x, self.to_q, self.to_k, self.to_v)
        else:
            query = self.to_q(x[:, :keep])
            key, value = project(x if context is None else context, self.to_k, self.to_v)
        query, key = self.norm_q(query), self.norm_k(key)
        query, key, value = (y.reshape(*y.shape[:2], self.num_heads, -1) for y in (query, key, value))
        if rotary is not None:
            cosines, sines = (angles[:keep] for angles in rotary)
            query, key = rotate(query, (cosines, sines)), rotate(key, rotary)
        y = attend(query, key, value, mask)
        return self.to_out(y.reshape(*y.shape[:2], -1))


def _modulate(x, scale, shift):
    """LayerNorm of x `[B, N, D]`, scaled and shifted by `[B, K, D]` for K equal groups of tokens."""
    # Split into runs before the norm, so that GPU compilers fuse the norm with the scale and shift.
    y = layer_norm(_groups(x, scale)) * (1 + _per_group(scale)) + _per_group(shift)
    return y.reshape(x.shape).astype(x.dtype)


def _gate(x, gate):
    """x `[B, N, D]` times `gate` `[B, K, D]`, in float32, for K equal groups of tokens."""
    return (_groups(x.astype(jnp.float32), gate) * _per_group(gate)).reshape(x.shape)


def _groups(x, modulation):
    """`[B, N, D]` to `[B * K, N / K, D]`: with four axes, XLA sums gradients 40 times slower on CPUs."""
    return x.reshape(math.prod(modulation.shape[:2]), -1, x.shape[-1])


def _per_group(modulation):
    """`[B, K, D]` to `[B * K, 1, D]`, to broadcast against `_groups`."""
    return modulation.reshape(-1, 1, modulation.shape[-1])


def _leading_groups(modulation, fraction: float):
    """The modulation `[B, K, D]` of the leading fraction of the tokens."""
    return modulation[:, : max(1, round(fraction * modulation.shape[1]))]


class Block(nnx.Module):
    """Self-attention, cross-attention to the instruction, feed-forward; six modulations from the timestep."""

    def __init__(self, config: DiTConfig, *, dtype, rngs: nnx.Rngs):
        size, rank = config.hidden_size, config.lora_rank
        # With adapters, frozen matrices are stored in the dtype of their products (they would be cast).
        linear = linear_factory(dtype, dtype if rank else jnp.float32, rngs, rank)
        self.attn1 = Attention(size, config.num_heads, linear=linear)
        self.attn2 = Attention(size, config.num_heads, linear=linear)
        self.norm2 = nnx.LayerNorm(size, epsilon=1e-6, dtype=jnp.float32, rngs=rngs)
        self.ffn = MLP((size, config.ffn_size, size), gelu, linear=linear)
        table = jax.random.normal(rngs.params(), (6, size)) / math.sqrt(size)
        self.scale_shift_table = nnx.Param(table)

    def __call__(self, x, modulation, context, context_mask, rotary, *, keep=None):
        """x `[B, N, D]`, modulation `[B, K, 6, D]`, context `[B, L, D]` -> the first `keep` of N tokens."""
        table = self.scale_shift_table[...].astype(jnp.float32) + modulation
        shift_1, scale_1, gate_1, shift_3, scale_3, gate_3 = (table[:, :, i] for i in range(6))
        dtype = x.dtype
        y = self.attn1(_modulate(x, scale_1, shift_1), rotary=rotary, keep=keep)
        if keep is not None:
            parts = gate_1, shift_3, scale_3, gate_3
            gate_1, shift_3, scale_3, gate_3 = (_leading_groups(part, keep / x.shape[1]) for part in parts)
            x = x[:, :keep]
        x = (x + _gate(y, gate_1)).astype(dtype)
        x = x + self.attn2(self.norm2(x).astype(dtype), context, mask=context_mask)
        y = self.ffn(_modulate(x, scale_3, shift_3))
        return (x + _gate(y, gate_3)).astype(dtype)


class DiT(nnx.Module):
    """Predicts the velocity of noisy latents from timesteps and an instruction."""

    def __init__(self, config: DiTConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        """Parameters are float32 (with adapters, matrices of blocks are `dtype`); products use `dtype`."""
        self.config, self.dtype = config, dtype
        size, patch = config.hidden_size, config.patch_size**2 * config.channels
        self.patch_embedding = Linear(patch, size, dtype=dtype, kernel_init=xavier, rngs=rngs)
        linear_float32 = linear_factory(jnp.float32, jnp.float32, rngs)
        self.time_embedder = MLP((config.frequency_dim, size, size), jax.nn.silu, linear=linear_float32)
        self.time_proj = Linear(size, 6 * size, dtype=jnp.float32, kernel_init=_time_proj_init, rngs=rngs)
        self.pooled_embedder = linear_float32(config.text_dim, size) if config.pooled_text else None
        linear = linear_factory(dtype, jnp.float32, rngs)
        self.text_embedder = MLP((config.text_dim, size, size), gelu, linear=linear)
        self.blocks = stack(lambda rngs: Block(config, dtype=dtype, rngs=rngs), config.depth, rngs)
        table = jax.random.normal(rngs.params(), (2, size)) / math.sqrt(size)
        self.scale_shift_table = nnx.Param(table)
        self.proj_out = Linear(size, patch, dtype=dtype, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.clean_embedding = nnx.Param(jnp.zeros((size,))) if config.clean_embedding else None
        self._init_output_projection()

    def _init_output_projection(self) -> None:
        """Initialises the output projection as the transpose of the input projection, so that velocity ~ x_t.

        Most of the velocity of a very noisy latent is the noise itself. A zero-initialised output layer
        needs a few hundred steps to learn to copy it.
        """
        kernel, channels = self.patch_embedding.kernel[...], self.config.channels
        patch_dim, size = kernel.shape
        basis, _ = jnp.linalg.qr(
            jax.random.normal(jax.random.key(0), (max(size, patch_dim), min(size, patch_dim)))
        )
        basis = basis if size < patch_dim else basis.T
        self.patch_embedding.kernel[...] = basis
        # Rescaled, because the last norm gives tokens unit variance, not the variance of the patch.
        kernel = basis.T.reshape(size, channels, patch_dim // channels).swapaxes(1, 2)
        self.proj_out.kernel[...] = kernel.reshape(size, patch_dim) * math.sqrt(patch_dim / size)

    def __call__(
        self,
        latents: Float[Array, "B F h w C"],
        timesteps: Float[Array, "B K"],
        text_embeds: Float[Array, "B L T"],
        text_mask: Bool[Array, "B L"] | None = None,
    ) -> Float[Array, "B F h w C"]:
        """Predicts the velocity of every frame.

        Args:
            latents: frame 0 is noisy; further frames are conditions.
            timesteps: noise levels in [0, 1] of K equal groups of consecutive tokens: K = 1 for one level,
                K = F for one per frame, K = N for one per token. Like Wan, the network embeds 1000 t.
            text_embeds: embeddings of the instruction, one per token.
            text_mask: False for padding; None attends to all tokens, as Wan's own pipelines do.

        Returns:
            float32 velocities in the shape of `latents`.
        """
        return self.together((latents, timesteps, text_embeds, text_mask))[0]

    def together(
        self, *inputs: tuple[Any, ...], frames: int | None = None
    ) -> list[Float[Array, "B f h w C"]]:
        """Like `__call__` for several batches of different shapes: a tuple of its arguments for each.

        Only the first `frames` frames are predicted; all if it is None. See `scan_blocks`.
        """
        times = [self._modulation_embedding(t, text, mask) for _, t, text, mask in inputs]
        streams = [
            self._block_inputs(x, t, text, mask, time)
            for (x, t, text, mask), time in zip(inputs, times, strict=True)
        ]
        config = self.config
        grids = [self._grid(latents[:, :frames]) for latents, *_ in inputs]
        keep = [
            math.prod(grid) if grid[0] < arguments[0].shape[1] else None
            for grid, arguments in zip(grids, inputs, strict=True)
        ]
        xs = scan_blocks(self.blocks, *streams, remat=config.remat, unroll=config.unroll, keep=keep)
        times = [
            _leading_groups(time, grid[0] / arguments[0].shape[1])
            for time, grid, arguments in zip(times, grids, inputs, strict=True)
        ]
        return [self._project_out(x, time, grid) for x, time, grid in zip(xs, times, grids, strict=True)]

    def _modulation_embedding(self, timesteps, text_embeds, text_mask) -> Float[Array, "B K D"]:
        """The embedding that modulates each group of tokens: timestep and, if enabled, pooled text."""
        time = self.time_embedder(sinusoid(1000 * timesteps, self.config.frequency_dim))
        if self.pooled_embedder is None:
            return time
        where = None if text_mask is None else text_mask[..., None]
        pooled = text_embeds.astype(jnp.float32).mean(1, where=where)
        return time + self.pooled_embedder(pooled)[:, None]

    def _grid(self, latents: Float[Array, "B F h w C"]) -> tuple[int, int, int]:
        """The grid of tokens: (frames, rows, columns)."""
        _, frames, height, width, _ = latents.shape
        return frames, height // self.config.patch_size, width // self.config.patch_size

    def _block_inputs(self, latents, timesteps, text_embeds, text_mask, time) -> tuple[Any, ...]:
        """The arguments of the blocks; `time` is from `_modulation_embedding`."""
        config = self.config
        x = self.patch_embedding(patchify(latents, config.patch_size).astype(self.dtype))
        if self.clean_embedding is not None:
            x = x.at[:, math.prod(self._grid(latents)[1:]) :].add(self.clean_embedding[...].astype(x.dtype))
        modulation = self.time_proj(jax.nn.silu(time)).reshape(*timesteps.shape, 6, -1)
        context = self.text_embedder(text_embeds.astype(self.dtype))
        # Without this, XLA shards them by channels like the weights, and gathers them again in every block.
        modulation, context = constrain_batch(modulation), constrain_batch(context)
        head_dim = config.hidden_size // config.num_heads
        rotary = rotary_table(head_dim, self._grid(latents), config.rope_theta)
        return x, modulation, context, text_mask, rotary

    def _project_out(self, x, time, grid) -> Float[Array, "B F h w C"]:
        """Velocities from the output of the blocks."""
        shift, scale = (self.scale_shift_table[i].astype(jnp.float32) + time for i in range(2))
        x = self.proj_out(_modulate(x, scale, shift))
        return unpatchify(x.astype(jnp.float32), self.config.patch_size, grid)


def patchify(latents: Float[Array, "B F h w C"], patch: int) -> Float[Array, "B N C*{patch}*{patch}"]:
    """Square patches as tokens in the order (frame, row, column), with channels in Wan's order (C, p, p)."""
    b, f, h, w, c = latents.shape
    x = latents.reshape(b, f, h // patch, patch, w // patch, patch, c)
    return x.transpose(0, 1, 2, 4, 6, 3, 5).reshape(b, f * (h // patch) * (w // patch), -1)


def unpatchify(
    tokens: Float[Array, "B N D"], patch: int, grid: tuple[int, int, int]
) -> Float[Array, "B F h w C"]:
    """Tokens back to latents; channels in the order (p, p, C) of Wan's output projection."""
    b, (f, rows, columns) = tokens.shape[0], grid
    x = tokens.reshape(b, f, rows, columns, patch, patch, -1)
    return x.transpose(0, 1, 2, 4, 3, 5, 6).reshape(b, f, rows * patch, columns * patch, -1)
