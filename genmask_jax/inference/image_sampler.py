"""Text-to-image sampling: integrates the flow from noise to data, with classifier-free guidance."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8, UInt32

from genmask_jax import flow
from genmask_jax.config import SamplerConfig
from genmask_jax.inference.batching import (
    example_keys,
    example_noise,
    fixed_batches,
    host_batch_size,
    local_rows,
)
from genmask_jax.inference.programs import Program, shared_program
from genmask_jax.instruction.base import stack_inputs, warn_of_long_texts
from genmask_jax.sharding import constrain_batch, part_of_batch, to_devices, tracing_context
from genmask_jax.system import GenMask, Networks
from genmask_jax.utils.hosts import gather_arrays


class ImageSampler:
    """A jitted image sampler with a fixed batch size; compiled once, at its first call."""

    def __init__(self, networks: Networks, sampler: SamplerConfig, *, batch_size: int, seed: int = 0):
        """Prepares the sampler.

        Args:
            networks: `networks.params` may change between calls (as in training); the rest may not.
            sampler: number of steps, method, shift and guidance scale.
            batch_size: batch size per host; it is rounded up to shard evenly over the host's devices.
            seed: default seed of the noise.
        """
        self.networks, self.sampler = networks, sampler
        self.batch_size, self.seed = host_batch_size(batch_size, networks.mesh), seed
        self._null = stack_inputs([networks.preparer("", None)] * self.batch_size)
        static = networks.graphdef, networks.plan, networks.latent_shape, sampler.image_steps, sampler.shift
        self._sample = shared_program(_sample, *static, sampler.method)
        self._steps = shared_program(_steps, *static)

    def __call__(
        self,
        prompts: Sequence[str],
        *,
        seed: int | Sequence[int] | None = None,
        guidance_scale: float | None = None,
    ) -> UInt8[np.ndarray, "N H W 3"]:
        """Generates one image per prompt. The n-th prompt's noise depends only on the seed and n.

        With a list of seeds, one per prompt, each image is the first image of its seed. `seed` and
        `guidance_scale` override the sampler's own values and do not cause a recompilation. If the mesh spans
        several hosts, they split the work, and each returns all images.
        """
        networks, count = self.networks, len(prompts)
        warn_of_long_texts(networks.preparer, prompts)
        if isinstance(seed, Sequence):
            keys = example_keys(seed, np.zeros(count, int))
        else:
            keys = example_keys(self.seed if seed is None else seed, np.arange(count))
        side = networks.size
        images = np.zeros((count, side, side, 3), np.uint8)
        for batch, valid in fixed_batches(count, self.batch_size, part_of_batch(networks.mesh)):
            inputs = stack_inputs([networks.preparer(prompts[int(i)], None) for i in batch])
            output = self._sample(*self._arguments(inputs, keys[batch], guidance_scale))
            images[batch[:valid]] = _to_uint8(local_rows(output)[:valid])
        return gather_arrays(images)

    def steps(
        self, prompt: str, *, seed: int | None = None, guidance_scale: float | None = None
    ) -> UInt8[np.ndarray, "T H W 3"]:
        """Returns the predicted image after each of T steps, for one prompt, on one host."""
        networks = self.networks
        warn_of_long_texts(networks.preparer, [prompt])
        inputs = stack_inputs([networks.preparer(prompt, None)] * self.batch_size)
        keys = example_keys(self.seed if seed is None else seed, np.zeros(self.batch_size, int))
        images = self._steps(*self._arguments(inputs, keys, guidance_scale))
        return _to_uint8(jax.device_get(images[:, 0]))

    def _arguments(self, inputs: Any, keys: np.ndarray, guidance_scale: float | None) -> tuple[Any, ...]:
        """The arguments of `program` for a batch of prepared prompts, on the devices."""
        networks = self.networks
        scale = self.sampler.guidance_scale if guidance_scale is None else guidance_scale
        scales = np.full(len(keys), scale, np.float32)
        rows = to_devices((inputs, self._null, keys, scales), networks.mesh)
        return networks.params, networks.frozen, *rows

    @property
    def program(self) -> Program:
        """The compiled program, which returns images float32 `[B, H, W, 3]` of a batch.

        Its arguments are the trainable parameters, the frozen parameters, the prepared prompts, the prepared
        empty prompt in every row, seeds uint32 `[B, 2]` from `example_keys`, and guidance scales float32
        `[B]`.
        """
        return self._sample

    def images(self, params, frozen, *batch):
        """Computes the output of `program` without sharding constraints."""
        sampler, model = self.sampler, self.networks.merge(params, frozen)
        timesteps = sampler.image_steps, sampler.shift
        return _images(model, self.networks.latent_shape, *timesteps, sampler.method, *batch)


def _sample(graphdef, plan, shape, steps, shift, method, params, frozen, *batch):
    with tracing_context(plan):
        model = nnx.merge(graphdef, params, frozen)
        return constrain_batch(_images(model, shape, steps, shift, method, *batch))


def _images(model, shape, steps, shift, method, *batch):
    """Images `[B, H, W, 3]` of a batch; `batch` are the arguments of `_guided_velocity`."""
    velocity, noise = _guided_velocity(model, shape, *batch)
    latents = flow.integrate(velocity, noise, flow.sampling_timesteps(steps, shift), method)
    return model.vae.decode(latents)


def _steps(graphdef, plan, shape, steps, shift, params, frozen, *batch):
    """Predicted images `[T, B, H, W, 3]` after each step of Euler's method."""
    with tracing_context(plan):
        model = nnx.merge(graphdef, params, frozen)
        velocity, noise = _guided_velocity(model, shape, *batch)
        predicted = flow.x0_trajectory(velocity, noise, flow.sampling_timesteps(steps, shift))
        return jax.lax.map(model.vae.decode, predicted)


def _guided_velocity(
    model: GenMask,
    shape: tuple[int, int, int],
    instruction: dict[str, Array],
    null: dict[str, Array],
    seeds: UInt32[Array, "B 2"],
    scales: Float[Array, " B"],
) -> tuple[flow.Velocity, Float[Array, "B h w c"]]:
    """Returns the velocity function with guidance, and the initial noise of a batch."""
    text = model.instruction(jax.tree.map(lambda a, b: jnp.concatenate([a, b]), instruction, null))

    def velocity(x_t, t):
        doubled = model.velocity(jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t]), text)
        conditional, unconditional = jnp.split(doubled, 2)
        return flow.apply_guidance(conditional, unconditional, scales)

    return velocity, example_noise(seeds, 0, shape)


def _to_uint8(output: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Converts pixels in [-1, 1] to levels from 0 to 255."""
    return np.round(np.clip(output * 127.5 + 127.5, 0, 255)).astype(np.uint8)
