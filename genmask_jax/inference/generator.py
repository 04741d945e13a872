"""Prompts to images: the flow integrated from noise to data, with classifier-free guidance."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8, UInt32

from genmask_jax import flow
from genmask_jax.config import SamplerConfig
from genmask_jax.hosts import gather_arrays
from genmask_jax.inference.batching import (
    example_keys,
    example_noise,
    fixed_batches,
    host_batch_size,
    own_rows,
)
from genmask_jax.instruction.base import stack_inputs
from genmask_jax.sharding import constrain_batch, part_of_batch, to_devices, tracing_on
from genmask_jax.system import Networks


class Generator:
    """A jitted sampler of images with a fixed batch size; compiled once, at its first call."""

    def __init__(self, networks: Networks, sampler: SamplerConfig, *, batch_size: int, seed: int = 0):
        """`networks.params` may change between calls (as in training); the rest may not.

        `batch_size` is that of each host, and grows to what its devices can share.
        """
        self.networks, self.sampler = networks, sampler
        self.batch_size, self.seed = host_batch_size(batch_size, networks.mesh), seed
        self._null = stack_inputs([networks.preparer("", None)] * self.batch_size)
        self._sample = jax.jit(self.trace)

    def __call__(self, prompts: Sequence[str]) -> UInt8[np.ndarray, "N H W 3"]:
        """An image for every prompt; the n-th prompt's noise depends on the seed and n alone.

        Where the mesh spans hosts, they share the work, and each gets all images.
        """
        networks = self.networks
        side = networks.size
        images = np.zeros((len(prompts), side, side, 3), np.uint8)
        for batch, real in fixed_batches(len(prompts), self.batch_size, part_of_batch(networks.mesh)):
            inputs = stack_inputs([networks.preparer(prompts[i], None) for i in batch])
            rows = (inputs, self._null, example_keys(self.seed, batch))
            output = self._sample(networks.params, networks.frozen, *to_devices(rows, networks.mesh))
            levels = np.clip(own_rows(output)[:real] * 127.5 + 127.5, 0, 255)
            images[batch[:real]] = np.round(levels).astype(np.uint8)
        return gather_arrays(images)

    def trace(
        self,
        params: Any,
        frozen: Any,
        instruction: dict[str, Array],
        null: dict[str, Array],
        seeds: UInt32[Array, "B 2"],
    ) -> Float[Array, "B H W 3"]:
        """The sampler's program: images of a batch; `null` is the empty prompt, prepared, for each."""
        with tracing_on(self.networks.mesh):
            return constrain_batch(self.images(params, frozen, instruction, null, seeds))

    def images(self, params, frozen, instruction, null, seeds):
        """As `trace`, wherever it runs."""
        model, sampler = self.networks.merge(params, frozen), self.sampler
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), instruction, null)
        text = model.instruction(both)

        def velocity(x_t, t):
            doubled = model.velocity(jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t]), text)
            return flow.guide(*jnp.split(doubled, 2), sampler.guidance_scale)

        noise = example_noise(seeds, 0, self.networks.latent_shape)
        timesteps = flow.sampling_timesteps(sampler.image_steps, sampler.shift)
        return model.vae.decode(flow.integrate(velocity, noise, timesteps, sampler.method))
