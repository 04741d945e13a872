"""Segmentation: one pass from pure noise to a mask, which may be refined, or averaged over noises."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8, UInt32

from genmask_jax import flow
from genmask_jax.config import SamplerConfig, with_refinement
from genmask_jax.errors import UserError
from genmask_jax.inference.batching import (
    example_keys,
    example_noise,
    fixed_batches,
    host_batch_size,
    own_rows,
)
from genmask_jax.instruction.base import stack_inputs, warn_of_cut_texts
from genmask_jax.pixels import rgb_to_probability, to_signed
from genmask_jax.sharding import constrain_batch, to_devices, tracing_on
from genmask_jax.system import Networks


class MaskSampler:
    """A jitted mask sampler with a fixed batch size; compiled once, at its first call."""

    def __init__(self, networks: Networks, sampler: SamplerConfig, *, batch_size: int, seed: int = 0):
        """`networks.params` may change between calls (as in training); the rest may not.

        `batch_size` is per host; it is rounded up to shard evenly over the host's devices.

        Raises:
            UserError: masks are to be refined, and the model was not trained for it (`with_refinement`).
        """
        self.networks = networks
        self.sampler = with_refinement(sampler, networks.config.timesteps.segment)
        self.batch_size, self.seed = host_batch_size(batch_size, networks.mesh), seed
        self._sample = jax.jit(self.trace)
        self._encode, self._decide = jax.jit(self._trace_encode), jax.jit(self._trace_decide)

    def __call__(
        self,
        images: UInt8[np.ndarray, "N H W 3"],
        texts: Sequence[str],
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> Float[np.ndarray, "N H W"]:
        """Returns the probability, in [0, 1], that each pixel belongs to the object that the text names.

        The mask is where it exceeds `sampler.mask_threshold`. If the mesh spans several hosts, each passes
        its own examples, and all pass the same number of batches.

        Args:
            images: at the model's training resolution.
            texts: one expression per image.
            indices: seed the noise of each example; 0, 1, ... if None.

        Raises:
            UserError: an expression is empty.
        """
        self._need_texts(texts)
        numbers = np.arange(len(texts)) if indices is None else np.asarray(indices)
        rows = [self.networks.preparer(text, image) for text, image in zip(texts, images, strict=True)]
        inputs = stack_inputs(rows)
        output = []
        for batch, real in fixed_batches(len(texts), self.batch_size):
            rows = (images, inputs, example_keys(self.seed, numbers))
            arguments = to_devices(jax.tree.map(lambda x, b=batch: x[b], rows), self.networks.mesh)
            probability = self._sample(self.networks.params, self.networks.frozen, *arguments)
            output.append(own_rows(probability)[:real])
        return np.concatenate(output)

    def of_phrases(
        self,
        images: UInt8[np.ndarray, "N H W 3"],
        texts: Sequence[str],
        indices: Sequence[int] | np.ndarray | None = None,
        *,
        batch_sizes: tuple[int, int] | None = None,
    ) -> tuple[Float[np.ndarray, "N K H W"], Float[np.ndarray, "N K H W"]]:
        """Probabilities of each of K phrases in each image, and their standard deviation over the noises.

        An image is encoded once for all phrases, and its noises are the same for all of them. The deviation
        is 0 where `sampler.mask_samples` is 1. If the mesh spans several hosts, each passes its own images,
        and all pass the same number of images, the same phrases and the same batch sizes. Compiled once for
        each pair of batch sizes. For the arguments and errors see `__call__`.

        Args:
            images, texts, indices: see `__call__`; every text is asked of every image.
            batch_sizes: how many images are encoded at once, and how many masks are computed at once, per
                host; the sampler's own for both if None.
        """
        self._need_texts(texts)
        networks = self.networks
        mesh, params, frozen = networks.mesh, networks.params, networks.frozen
        of_images, of_masks = (host_batch_size(n, mesh) for n in batch_sizes or (self.batch_size,) * 2)
        numbers = np.arange(len(images)) if indices is None else np.asarray(indices)
        latents = []
        for batch, real in fixed_batches(len(images), of_images):
            latents.append(own_rows(self._encode(params, frozen, to_devices(images[batch], mesh)))[:real])
        inputs = stack_inputs([networks.preparer(text, image) for image in images for text in texts])
        of_image = np.repeat(np.arange(len(images)), len(texts))
        rows = (np.concatenate(latents)[of_image], inputs, example_keys(self.seed, numbers[of_image]))
        means, deviations = [], []
        for batch, real in fixed_batches(len(of_image), of_masks):
            arguments = to_devices(jax.tree.map(lambda x, b=batch: x[b], rows), mesh)
            mean, deviation = self._decide(params, frozen, *arguments)
            means.append(own_rows(mean)[:real])
            deviations.append(own_rows(deviation)[:real])
        shape = (len(images), len(texts), *images.shape[1:3])
        return np.concatenate(means).reshape(shape), np.concatenate(deviations).reshape(shape)

    def _need_texts(self, texts: Sequence[str]) -> None:
        for text in texts:
            if not text.strip():
                raise UserError(
                    "--text: the expression is empty; say what to segment, such as 'the red star'"
                )
        warn_of_cut_texts(self.networks.preparer, texts)

    def trace(
        self,
        params: Any,
        frozen: Any,
        images: UInt8[Array, "B H W 3"],
        instruction: dict[str, Array],
        seeds: UInt32[Array, "B 2"],
    ) -> Float[Array, "B H W"]:
        """The jitted function: probabilities of a batch; `seeds` come from `example_keys`."""
        with tracing_on(self.networks.mesh):
            return constrain_batch(self.probabilities(params, frozen, images, instruction, seeds))

    def probabilities(self, params, frozen, images, instruction, seeds):
        """Same as `trace`, without sharding constraints."""
        image_latents = self._latents(params, frozen, images)
        return self._samples(params, frozen, image_latents, instruction, seeds).mean(0)

    def _trace_encode(self, params, frozen, images):
        with tracing_on(self.networks.mesh):
            return constrain_batch(self._latents(params, frozen, images))

    def _trace_decide(self, params, frozen, image_latents, instruction, seeds):
        with tracing_on(self.networks.mesh):
            samples = self._samples(params, frozen, image_latents, instruction, seeds)
            return constrain_batch(samples.mean(0)), constrain_batch(samples.std(0))

    def _latents(self, params, frozen, images):
        return self.networks.merge(params, frozen).vae.encode(to_signed(images))

    def _samples(self, params, frozen, image_latents, instruction, seeds):
        """Probabilities `[mask_samples, B, H, W]`, one mask for each noise."""
        model = self.networks.merge(params, frozen)
        text = model.instruction(instruction)

        def one_mask(sample: jax.Array) -> jax.Array:
            def predict(x_t, t):
                t = jnp.full(len(image_latents), t)
                return flow.predict_x0(x_t, model.velocity(x_t, t, text, image_latents), t)

            def noise(step):
                return example_noise(seeds, sample * self.sampler.mask_steps + step, image_latents.shape[1:])

            x0 = predict(noise(0), 1.0)
            for step in range(1, self.sampler.mask_steps):
                t = jnp.full(len(image_latents), self.sampler.refine_t)
                x0 = predict(flow.add_noise(x0, noise(step), t), self.sampler.refine_t)
            return rgb_to_probability(model.vae.decode(x0))

        return jax.lax.map(one_mask, jnp.arange(self.sampler.mask_samples))
