"""Prompts to pictures: the flow integrated from noise to data, with classifier-free guidance."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8, UInt32

from genmask_jax import flow
from genmask_jax.config import SamplerConfig
from genmask_jax.inference.batching import example_keys, example_noise, fixed_batches, stack_inputs
from genmask_jax.models.genmask import Networks


class Generator:
    """A jitted sampler of pictures with a fixed batch size; compiled once, at its first call."""

    def __init__(self, networks: Networks, sampler: SamplerConfig, *, batch_size: int, seed: int = 0):
        """`networks.params` may change between calls (as in training); the rest may not."""
        self.networks, self.sampler = networks, sampler
        self.batch_size, self.seed = batch_size, seed
        self._null = stack_inputs([networks.preparer("", None)] * batch_size)
        self._sample = jax.jit(self._trace)

    def __call__(self, prompts: Sequence[str]) -> UInt8[np.ndarray, "N H W 3"]:
        """A picture for every prompt; the n-th prompt's noise depends on the seed and n alone."""
        inputs = stack_inputs([self.networks.preparer(prompt, None) for prompt in prompts])
        output = []
        for batch, real in fixed_batches(len(prompts), self.batch_size):
            conditions = (jax.tree.map(lambda x, b=batch: x[b], inputs), self._null)
            arguments = jax.device_put((*conditions, example_keys(self.seed, batch)))
            pictures = self._sample(self.networks.params, self.networks.frozen, *arguments)
            output.append(jax.device_get(pictures)[:real])
        pictures = np.clip(np.concatenate(output) * 127.5 + 127.5, 0, 255)
        return np.round(pictures).astype(np.uint8)

    def _trace(
        self,
        params: Any,
        frozen: Any,
        instruction: dict[str, Array],
        null: dict[str, Array],
        seeds: UInt32[Array, "B 2"],
    ) -> Float[Array, "B H W 3"]:
        model, sampler = self.networks.merge(params, frozen), self.sampler
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), instruction, null)
        text = model.instruction(both)

        def velocity(x_t, t):
            doubled = model.velocity(jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t]), text)
            return flow.guide(*jnp.split(doubled, 2), sampler.guidance_scale)

        noise = example_noise(seeds, 0, self.networks.latent_shape)
        timesteps = flow.sampling_timesteps(sampler.image_steps, sampler.shift)
        return model.vae.decode(flow.integrate(velocity, noise, timesteps, sampler.method))
