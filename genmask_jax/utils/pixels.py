"""Images and masks as the models see them: RGB in [-1, 1]."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def to_signed(images: UInt8[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """Images from [0, 255] to [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


def mask_to_rgb(masks: UInt8[Array, "B H W"]) -> Float[Array, "B H W 3"]:
    """Masks from {0, 1} to black-and-white images of -1 and +1."""
    signed = masks.astype(jnp.float32) * 2 - 1
    return jnp.broadcast_to(signed[..., None], (*masks.shape, 3))


def rgb_to_probability(images: Float[Array, "B H W 3"]) -> Float[Array, "B H W"]:
    """Decoded masks to [0, 1]: the mean of the channels, clipped."""
    return jnp.clip((images.mean(-1) + 1) / 2, 0.0, 1.0)
