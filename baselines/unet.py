"""A U-Net on pixels, with cross-attention to the instruction: image and text to logits of the mask."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from genmask_jax.instruction.base import Embedded, InstructionEncoder
from genmask_jax.models.dit import Attention
from genmask_jax.models.layers import Linear, layer_norm, linear_factory
from genmask_jax.models.vae import ChannelNorm, ResidualBlock
from genmask_jax.utils.pixels import to_signed


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Shape of a U-Net.

    channels: channels of each resolution, from the finest on; each next one has half the side.
    patch_size: side of the square of pixels that forms one position of the finest resolution.
    num_heads: heads of the attention, which all but the finest resolution have.
    """

    channels: tuple[int, ...] = (32, 96, 160)
    patch_size: int = 2
    num_heads: int = 4


class TextAttention(nnx.Module):
    """Self-attention over all positions, then cross-attention to the tokens of the instruction."""

    def __init__(self, channels: int, text_dim: int, num_heads: int, *, dtype: Any, rngs: nnx.Rngs):
        linear = linear_factory(dtype, jnp.float32, rngs)
        self.project_text = linear(text_dim, channels)
        self.to_self = Attention(channels, num_heads, linear=linear)
        self.to_text = Attention(channels, num_heads, linear=linear)

    def __call__(self, x: Float[Array, "B h w C"], text: Embedded) -> Float[Array, "B h w C"]:
        embeds, mask = text
        tokens = x.reshape(len(x), -1, x.shape[-1])
        tokens = tokens + self.to_self(layer_norm(tokens).astype(x.dtype))
        context = self.project_text(embeds.astype(x.dtype))
        tokens = tokens + self.to_text(layer_norm(tokens).astype(x.dtype), context, mask=mask)
        return tokens.reshape(x.shape)


class Level(nnx.Module):
    """A residual block and, where there is `num_heads`, attention: one resolution, on the way down or up."""

    def __init__(self, inputs: int, outputs: int, text_dim: int, num_heads: int, *, dtype, rngs: nnx.Rngs):
        self.block = ResidualBlock(inputs, outputs, dtype=dtype, rngs=rngs)
        self.attention = (
            TextAttention(outputs, text_dim, num_heads, dtype=dtype, rngs=rngs) if num_heads else None
        )

    def __call__(self, x: Float[Array, "B h w I"], text: Embedded) -> Float[Array, "B h w O"]:
        x = self.block(x)
        return x if self.attention is None else self.attention(x, text)


class UNet(nnx.Module):
    """Residual blocks at several resolutions, joined by skip connections."""

    def __init__(self, config: UNetConfig, text_dim: int, *, dtype: Any, rngs: nnx.Rngs):
        self.patch_size, self.dtype = config.patch_size, dtype
        channels, options = config.channels, {"dtype": dtype, "rngs": rngs}
        heads = [0] + [config.num_heads] * (len(channels) - 1)
        inputs = [channels[0], *channels[:-1]]
        self.stem = Linear(3 * config.patch_size**2, channels[0], **options)
        self.down = nnx.List(
            Level(i, o, text_dim, h, **options) for i, o, h in zip(inputs, channels, heads, strict=True)
        )
        self.shrink = nnx.List(nnx.Conv(c, c, (3, 3), strides=2, **options) for c in channels[:-1])
        self.grow = nnx.List(
            nnx.Conv(coarse, fine, (3, 3), **options) for fine, coarse in itertools.pairwise(channels)
        )
        self.up = nnx.List(
            Level(2 * c, c, text_dim, h, **options) for c, h in zip(channels[:-1], heads[:-1], strict=True)
        )
        self.norm = ChannelNorm(channels[0])
        self.head = Linear(channels[0], config.patch_size**2, **options)

    def __call__(self, images: Float[Array, "B H W 3"], text: Embedded) -> Float[Array, "B H W"]:
        """Logits of the mask; `images` are in [-1, 1]."""
        x, skips = self.stem(to_patches(images, self.patch_size).astype(self.dtype)), []
        for i, level in enumerate(self.down):
            x = level(self.shrink[i - 1](x) if i else x, text)
            skips.append(x)
        skips.pop()
        for grow, level in zip(reversed(self.grow), reversed(self.up), strict=True):
            x = grow(x.repeat(2, axis=1).repeat(2, axis=2))
            x = level(jnp.concatenate([x, skips.pop()], axis=-1), text)
        logits = self.head(jax.nn.silu(self.norm(x)))
        return to_pixels(logits.astype(jnp.float32), self.patch_size)


class UNetModel(nnx.Module):
    """The U-Net and its instruction encoder."""

    trained = ("unet",)

    def __init__(self, unet: UNet, instruction: InstructionEncoder):
        self.unet, self.instruction = unet, instruction

    def logits(self, images: UInt8[Array, "B H W 3"], instruction: Any) -> Float[Array, "B H W"]:
        """Logits of the mask, from images and prepared texts."""
        return self.unet(to_signed(images), self.instruction(instruction))


def to_patches(x: Float[Array, "B H W C"], size: int) -> Float[Array, "B h w D"]:
    """Squares of `size` x `size` pixels as channels."""
    b, height, width, c = x.shape
    x = x.reshape(b, height // size, size, width // size, size, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, height // size, width // size, -1)


def to_pixels(x: Float[Array, "B h w D"], size: int) -> Float[Array, "B H W"]:
    """Each vector of `size` x `size` channels as a square of pixels."""
    b, height, width, _ = x.shape
    x = x.reshape(b, height, width, size, size).transpose(0, 1, 3, 2, 4)
    return x.reshape(b, height * size, width * size)
