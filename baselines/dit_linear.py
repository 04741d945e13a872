"""GenMask's DiT with a linear head: the latents of an image, and text, to logits of the mask.

The DiT reads one frame, the clean image, at timestep 0. There is no noise. The head replaces the projection
to velocities, and predicts all pixels of a token from that token alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8
from unet import to_pixels

from genmask_jax.instruction.base import InstructionEncoder
from genmask_jax.models.dit import DiT
from genmask_jax.models.layers import Linear
from genmask_jax.models.vae import VAE
from genmask_jax.utils.pixels import to_signed


class DiTLinear(nnx.Module):
    """The DiT, its head, the frozen VAE and the instruction encoder."""

    trained = ("dit",)

    def __init__(self, dit: DiT, vae: VAE, instruction: InstructionEncoder, *, rngs: nnx.Rngs):
        self.dit, self.vae, self.instruction = dit, vae, instruction
        self.stride = vae.config.stride
        outputs = (dit.config.patch_size * self.stride) ** 2
        zeros = nnx.initializers.zeros
        dit.proj_out = Linear(dit.config.hidden_size, outputs, dtype=dit.dtype, kernel_init=zeros, rngs=rngs)

    def logits(self, images: UInt8[Array, "B H W 3"], instruction: Any) -> Float[Array, "B H W"]:
        """Logits of the mask, from images and prepared texts."""
        latents = jax.lax.stop_gradient(self.vae.encode(to_signed(images)))
        clean, text = jnp.zeros((len(images), 1)), self.instruction(instruction)
        (squares,) = self.dit.together((latents[:, None], clean, *text))  # [B, 1, h, w, stride * stride]
        return to_pixels(squares[:, 0], self.stride)
