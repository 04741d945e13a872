"""The vision tower of Qwen2.5-VL, from patches of images to tokens of the language model.

Reference: transformers' `Qwen2_5_VisionTransformerPretrainedModel`. There, the patches of all images are one
sequence, and attention is within its segments. Here, each image is a row of fixed length: its patches, window
by window (ordered by `images.py`), then padding.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from genmask_jax.instruction.qwen.config import QwenVisionConfig
from genmask_jax.instruction.qwen.layers import (
    GatedMLP,
    Table,
    frequencies,
    rotary_table,
    rotate_halves,
)
from genmask_jax.models.attention import attend
from genmask_jax.models.layers import RMSNorm, exact_gelu, linear_factory, scan_blocks, stack
from genmask_jax.sharding import is_counting

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of pixels in [0, 1], from CLIP."""
ROPE_THETA = 1e4
"""Base of the rotary frequencies."""


def normalise(patches: UInt8[Array, "... pixels"]) -> Float[Array, "... pixels"]:
    """Normalises pixels as (x / 255 - mean) / std per channel, in float32."""
    pixels = patches.reshape(*patches.shape[:-1], 3, -1).astype(jnp.float32) / 255
    mean, std = (np.asarray(values, np.float32)[:, None] for values in (IMAGE_MEAN, IMAGE_STD))
    return ((pixels - mean) / std).reshape(patches.shape)


class VisionBlock(nnx.Module):
    """Attention within windows or over the whole image, and a gated MLP, both pre-normed."""

    def __init__(self, config: QwenVisionConfig, *, linear):
        size = config.hidden_size
        self.config = config
        self.norm1, self.norm2 = RMSNorm(size), RMSNorm(size)
        self.qkv, self.proj = linear(size, 3 * size, True), linear(size, size, True)
        self.mlp = GatedMLP(size, config.ffn_size, use_bias=True, linear=linear)

    def __call__(
        self, x: Float[Array, "P S D"], table: Table, windows: Int[Array, "P S"], full: Bool[Array, ""]
    ) -> Float[Array, "P S D"]:
        """`windows` is the window of each patch, -1 for padding; `full` selects attention to all patches."""
        heads = (*x.shape[:2], 3, self.config.num_heads, -1)
        query, key, value = jnp.moveaxis(self.qkv(self.norm1(x)).reshape(heads), 2, 0)
        query, key = rotate_halves(query, table), rotate_halves(key, table)
        branches = (
            lambda: attend(query, key, value, windows >= 0),
            lambda: attend_windows(query, key, value, windows, self.config.window_patches),
        )
        # To count FLOPs, each block is traced separately, with a concrete `full`.
        attended = branches[0 if full else 1]() if is_counting() else jax.lax.cond(full, *branches)
        x = x + self.proj(attended.reshape(x.shape))
        return x + self.mlp(self.norm2(x))


def attend_windows(
    query: Float[Array, "P S H D"],
    key: Float[Array, "P S H D"],
    value: Float[Array, "P S H D"],
    windows: Int[Array, "P S"],
    size: int,
) -> Float[Array, "P S H D"]:
    """Attention within windows of at most `size` adjacent tokens; `size` divides S.

    The sequence is split into chunks of `size` tokens. A window spans at most two chunks, so each chunk
    attends to itself and its two neighbours, and shapes do not depend on the windows.
    """
    images, length = windows.shape

    def chunks(x: Array) -> Array:
        return x.reshape(images, length // size, size, *x.shape[2:])

    def with_neighbours(x: Array, fill: int) -> Array:
        padding = [(0, 0), (1, 1)] + [(0, 0)] * (x.ndim - 1)
        x = jnp.pad(chunks(x), padding, constant_values=fill)
        return jnp.concatenate([x[:, :-2], x[:, 1:-1], x[:, 2:]], axis=2)

    same_window = chunks(windows)[..., :, None] == with_neighbours(windows, -2)[..., None, :]
    parts = (chunks(query), with_neighbours(key, 0), with_neighbours(value, 0), same_window)
    attended = attend(*(part.reshape(-1, *part.shape[2:]) for part in parts))
    return attended.reshape(query.shape)


class PatchMerger(nnx.Module):
    """Merges squares of patches into tokens of the language model's width."""

    def __init__(self, config: QwenVisionConfig, out_size: int, *, linear):
        self.merged = config.merge_size**2
        size = config.hidden_size * self.merged
        self.norm = RMSNorm(config.hidden_size)
        self.linear_1, self.linear_2 = linear(size, size, True), linear(size, out_size, True)

    def __call__(self, x: Float[Array, "P S D"]) -> Float[Array, "P S//4 E"]:
        x = self.norm(x).reshape(x.shape[0], x.shape[1] // self.merged, -1)
        return self.linear_2(exact_gelu(self.linear_1(x)))


class QwenVision(nnx.Module):
    """Encodes patches of images as tokens."""

    def __init__(self, config: QwenVisionConfig, out_size: int, *, dtype, param_dtype, rngs: nnx.Rngs):
        """`out_size` is the language model's width; matrix products use `dtype`."""
        self.config, self.dtype = config, dtype
        pixels = 3 * config.temporal_patch_size * config.patch_size**2
        linear = linear_factory(dtype, param_dtype, rngs)
        self.patch_embed = linear(pixels, config.hidden_size, False)
        self.blocks = stack(
            lambda rngs: VisionBlock(config, linear=linear_factory(dtype, param_dtype, rngs)),
            config.depth,
            rngs,
        )
        self.merger = PatchMerger(config, out_size, linear=linear)

    def __call__(
        self,
        patches: UInt8[Array, "P S pixels"],
        positions: Int[Array, "P S 2"],
        windows: Int[Array, "P S"],
        order: Int[Array, "P T"],
    ) -> Float[Array, "P T E"]:
        """Returns the tokens of each image, row by row; tokens of padding are arbitrary.

        Args:
            patches: pixels, channel by channel; the patches of one token are adjacent.
            positions: row and column of each patch.
            windows: window of each patch, ascending; -1 for padding. `config.window_patches` divides S.
            order: index in the sequence of tokens in `patches`, for each token row by row.
        """
        config = self.config
        axis_frequencies = frequencies(config.hidden_size // config.num_heads // 2, ROPE_THETA)
        table = rotary_table(positions, (axis_frequencies, axis_frequencies))
        x = self._embed(patches)
        full = np.isin(np.arange(config.depth), config.full_attention)
        (x,) = scan_blocks(self.blocks, (x, table, windows), each=full)
        return jnp.take_along_axis(self.merger(x), order[..., None], axis=1)

    def _embed(self, patches: UInt8[Array, "P S pixels"]) -> Float[Array, "P S D"]:
        # All frames of a still image are equal, so the weights of the frames are summed.
        frames, area = self.config.temporal_patch_size, self.config.patch_size**2
        kernel = self.patch_embed.kernel[...].astype(jnp.float32).reshape(3, frames, area, -1).sum(1)
        return normalise(patches).astype(self.dtype) @ kernel.reshape(3 * area, -1).astype(self.dtype)
