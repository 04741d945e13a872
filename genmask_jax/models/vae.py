"""The image VAE of Wan 2.1 (`AutoencoderKLWan` in diffusers) in its single-frame, 2-D form, in Flax NNX.

For one frame, every temporal convolution of the video VAE is skipped or reduces to its last tap, so this
2-D network is exact. An optional pixel-unshuffle before it (`patch_size`, as in newer Wan VAEs) makes small
VAEs fast. Images are `[B, H, W, 3]` in [-1, 1]; a mask is an RGB image of -1 and +1.
"""

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """Shape of a VAE; the defaults are Wan 2.1's.

    base_dim, decoder_base_dim: channels of the encoder and the decoder at full resolution.
    channels: latent channels.
    multipliers: channel multiplier of each resolution; every level but the last halves the image.
    num_res_blocks: residual blocks per resolution (the decoder has one more).
    patch_size: side of the pixel-unshuffle before the encoder; 1 for none.
    """

    base_dim: int = 96
    decoder_base_dim: int = 96
    channels: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    patch_size: int = 1

    @property
    def stride(self) -> int:
        """Pixels per latent, along one side."""
        return self.patch_size * 2 ** (len(self.multipliers) - 1)


class ChannelNorm(nnx.Module):
    """Wan's RMS norm: unit-length channel vectors times sqrt(C) and a learned scale, in float32."""

    def __init__(self, channels: int):
        self.gamma = nnx.Param(jnp.ones((channels,)))

    def __call__(self, x):
        y = x.astype(jnp.float32)
        length = jnp.sqrt(jnp.square(y).sum(-1, keepdims=True))
        y = y / jnp.maximum(length, 1e-12) * math.sqrt(x.shape[-1])
        return (y * self.gamma[...]).astype(x.dtype)


def _conv(inputs: int, outputs: int, size: int, *, dtype, rngs, strides: int = 1, padding: Any = "SAME"):
    return nnx.Conv(inputs, outputs, (size, size), strides=strides, padding=padding, dtype=dtype, rngs=rngs)


class ResidualBlock(nnx.Module):
    """Norm, SiLU and 3x3 convolution, twice, with a skip connection (1x1 convolution if channels change)."""

    def __init__(self, inputs: int, outputs: int, *, dtype, rngs: nnx.Rngs):
        self.norm1, self.norm2 = ChannelNorm(inputs), ChannelNorm(outputs)
        self.conv1 = _conv(inputs, outputs, 3, dtype=dtype, rngs=rngs)
        self.conv2 = _conv(outputs, outputs, 3, dtype=dtype, rngs=rngs)
        self.conv_shortcut = _conv(inputs, outputs, 1, dtype=dtype, rngs=rngs) if inputs != outputs else None

    def __call__(self, x):
        skip = x if self.conv_shortcut is None else self.conv_shortcut(x)
        y = self.conv1(jax.nn.silu(self.norm1(x)))
        return skip + self.conv2(jax.nn.silu(self.norm2(y)))


class AttentionBlock(nnx.Module):
    """Single-head self-attention over all positions, with a skip connection."""

    def __init__(self, channels: int, *, dtype, rngs: nnx.Rngs):
        self.norm = ChannelNorm(channels)
        self.to_qkv = _conv(channels, 3 * channels, 1, dtype=dtype, rngs=rngs)
        self.proj = _conv(channels, channels, 1, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        b, h, w, c = x.shape
        query, key, value = jnp.split(self.to_qkv(self.norm(x)).reshape(b, h * w, 3 * c), 3, axis=-1)
        scores = jnp.einsum("bnc,bmc->bnm", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores * c**-0.5, axis=-1).astype(x.dtype)
        return x + self.proj(jnp.einsum("bnm,bmc->bnc", weights, value).reshape(b, h, w, c))


class MidBlock(nnx.Module):
    """Residual block, attention, residual block, at the lowest resolution."""

    def __init__(self, channels: int, *, dtype, rngs: nnx.Rngs):
        self.resnets = nnx.List(ResidualBlock(channels, channels, dtype=dtype, rngs=rngs) for _ in range(2))
        self.attention = AttentionBlock(channels, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        return self.resnets[1](self.attention(self.resnets[0](x)))


class Downsample(nnx.Module):
    """Halves the size: zero-pads one row and column (bottom, right), then a 3x3 convolution of stride 2."""

    def __init__(self, channels: int, *, dtype, rngs: nnx.Rngs):
        self.conv = _conv(channels, channels, 3, strides=2, padding=((0, 1), (0, 1)), dtype=dtype, rngs=rngs)

    def __call__(self, x):
        return self.conv(x)


class Upsample(nnx.Module):
    """Doubles the size by nearest neighbours, then a 3x3 convolution to half the channels."""

    def __init__(self, channels: int, *, dtype, rngs: nnx.Rngs):
        self.conv = _conv(channels, channels // 2, 3, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        return self.conv(x.repeat(2, axis=1).repeat(2, axis=2))


class Encoder(nnx.Module):
    """Pixels (unshuffled) to `2 * channels` features: mean and log-variance before `quant_conv`."""

    def __init__(self, config: VAEConfig, *, dtype, rngs: nnx.Rngs):
        sizes = [config.base_dim * m for m in (1, *config.multipliers)]
        self.conv_in = _conv(3 * config.patch_size**2, sizes[0], 3, dtype=dtype, rngs=rngs)
        blocks = []
        for level, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            for _ in range(config.num_res_blocks):
                blocks.append(ResidualBlock(inputs, outputs, dtype=dtype, rngs=rngs))
                inputs = outputs
            if level < len(config.multipliers) - 1:
                blocks.append(Downsample(outputs, dtype=dtype, rngs=rngs))
        self.down_blocks = nnx.List(blocks)
        self.mid_block = MidBlock(sizes[-1], dtype=dtype, rngs=rngs)
        self.norm_out = ChannelNorm(sizes[-1])
        self.conv_out = _conv(sizes[-1], 2 * config.channels, 3, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(jax.nn.silu(self.norm_out(self.mid_block(x))))


class UpBlock(nnx.Module):
    """The residual blocks of one resolution and the upsampling to the next."""

    def __init__(self, inputs: int, outputs: int, depth: int, *, upsample: bool, dtype, rngs: nnx.Rngs):
        sizes = [inputs] + [outputs] * depth
        self.resnets = nnx.List(
            ResidualBlock(a, b, dtype=dtype, rngs=rngs) for a, b in itertools.pairwise(sizes)
        )
        self.upsample = Upsample(outputs, dtype=dtype, rngs=rngs) if upsample else None

    def __call__(self, x):
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.upsample is None else self.upsample(x)


class Decoder(nnx.Module):
    """Latents (after `post_quant_conv`) to pixels (before the pixel-shuffle)."""

    def __init__(self, config: VAEConfig, *, dtype, rngs: nnx.Rngs):
        multipliers = config.multipliers[::-1]
        sizes = [config.decoder_base_dim * m for m in (multipliers[0], *multipliers)]
        self.conv_in = _conv(config.channels, sizes[0], 3, dtype=dtype, rngs=rngs)
        self.mid_block = MidBlock(sizes[0], dtype=dtype, rngs=rngs)
        blocks = []
        for level, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            blocks.append(
                UpBlock(
                    inputs if level == 0 else inputs // 2,  # halved by the previous upsampling
                    outputs,
                    config.num_res_blocks + 1,
                    upsample=level < len(multipliers) - 1,
                    dtype=dtype,
                    rngs=rngs,
                )
            )
        self.up_blocks = nnx.List(blocks)
        self.norm_out = ChannelNorm(sizes[-1])
        self.conv_out = _conv(sizes[-1], 3 * config.patch_size**2, 3, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(jax.nn.silu(self.norm_out(x)))


class VAE(nnx.Module):
    """Images to normalised latents and back."""

    def __init__(self, config: VAEConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        """Parameters are float32; convolutions use `dtype`. Latent statistics start at mean 0, std 1."""
        self.config, self.dtype = config, dtype
        self.encoder = Encoder(config, dtype=dtype, rngs=rngs)
        self.quant_conv = _conv(2 * config.channels, 2 * config.channels, 1, dtype=dtype, rngs=rngs)
        self.post_quant_conv = _conv(config.channels, config.channels, 1, dtype=dtype, rngs=rngs)
        self.decoder = Decoder(config, dtype=dtype, rngs=rngs)
        self.latents_mean = LatentStatistic(jnp.zeros((config.channels,)))
        self.latents_std = LatentStatistic(jnp.ones((config.channels,)))

    def moments(
        self, images: Float[Array, "B H W 3"]
    ) -> tuple[Float[Array, "B h w C"], Float[Array, "B h w C"]]:
        """Mean and log-variance (clipped to [-30, 20]) of the posterior, before normalisation, float32."""
        x = _unshuffle(images.astype(self.dtype), self.config.patch_size)
        mean, log_variance = jnp.split(self.quant_conv(self.encoder(x)).astype(jnp.float32), 2, axis=-1)
        return mean, jnp.clip(log_variance, -30.0, 20.0)

    def encode(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """The posterior mean, normalised per channel: the clean data of the DiT. float32."""
        return (self.moments(images)[0] - self.latents_mean[...]) / self.latents_std[...]

    def decode(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Normalised latents to images, float32, roughly in [-1, 1] and not clipped."""
        return self.decode_raw(latents * self.latents_std[...] + self.latents_mean[...])

    def decode_raw(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Latents before normalisation (samples of the posterior) to images."""
        x = self.decoder(self.post_quant_conv(latents.astype(self.dtype)))
        return _shuffle(x.astype(jnp.float32), self.config.patch_size)


class LatentStatistic(nnx.Variable):
    """Per-channel statistics of the latents, measured after training."""


def sample_posterior(key: PRNGKeyArray, mean, log_variance):
    """A sample from N(mean, exp(log_variance)), by reparameterisation."""
    return mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)


def _unshuffle(x, patch: int):
    """`[B, H, W, C]` -> `[B, H/p, W/p, C*p*p]`, channels in the order (C, column, row) of Wan's patchify."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // patch, patch, w // patch, patch, c).transpose(0, 1, 3, 5, 4, 2)
    return x.reshape(b, h // patch, w // patch, c * patch * patch)


def _shuffle(x, patch: int):
    """The inverse of `_unshuffle`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, c // patch**2, patch, patch).transpose(0, 1, 5, 2, 4, 3)
    return x.reshape(b, h * patch, w * patch, c // patch**2)
