"""Converts images and masks to and from the models' range, RGB in [-1, 1]."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def to_signed(images: UInt8[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """Converts images from [0, 255] to [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


def mask_to_rgb(masks: UInt8[Array, "B H W"]) -> Float[Array, "B H W 3"]:
    """Converts masks of 0 and 1 to RGB images of -1 and +1."""
    signed = masks.astype(jnp.float32) * 2 - 1
    return jnp.broadcast_to(signed[..., None], (*masks.shape, 3))


def rgb_to_probability(images: Float[Array, "B H W 3"]) -> Float[Array, "B H W"]:
    """Converts decoded masks to probabilities in [0, 1]: the mean of the channels, clipped."""
    return jnp.clip((images.mean(-1) + 1) / 2, 0.0, 1.0)
