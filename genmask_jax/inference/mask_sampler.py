"""Mask sampling: one pass from pure noise to mask probabilities, optionally refined or averaged."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8, UInt32

from genmask_jax import flow
from genmask_jax.config import SamplerConfig
from genmask_jax.config.checks import fit_to_training
from genmask_jax.inference.batching import (
    example_keys,
    example_noise,
    fixed_batches,
    host_batch_size,
    local_rows,
)
from genmask_jax.inference.programs import Program, shared_program
from genmask_jax.instruction.base import Embedded, stack_inputs, warn_of_long_texts
from genmask_jax.sharding import constrain_batch, to_devices, tracing_context
from genmask_jax.system import GenMask, Networks
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.pixels import to_signed

Passes = tuple[int, float, float]
"""`mask_steps`, `refine_t` and `mask_noise` of a `SamplerConfig`."""


class MaskSampler:
    """A jitted mask sampler with a fixed batch size; compiled once, at its first call."""

    def __init__(self, networks: Networks, sampler: SamplerConfig, *, batch_size: int, seed: int = 0):
        """Prepares the sampler.

        Args:
            networks: `networks.params` may change between calls (as in training); the rest may not.
            sampler: passes and noises per mask, and thresholds.
            batch_size: batch size per host; it is rounded up to shard evenly over the host's devices.
            seed: seed of the noise.

        Raises:
            UserError: the model was not trained for this `sampler` (`fit_to_training`).
        """
        self.networks = networks
        self.sampler = fit_to_training(sampler, networks.config)
        self.batch_size, self.seed = host_batch_size(batch_size, networks.mesh), seed
        model = networks.graphdef, networks.plan
        passes = self.sampler.mask_steps, self.sampler.refine_t, self.sampler.mask_noise
        self._sample = shared_program(_sample, *model, passes, self.sampler.mask_samples)
        self._encode = shared_program(_encode, *model)
        self._predict = shared_program(_predict, *model, passes)

    def __call__(
        self,
        images: UInt8[np.ndarray, "N H W 3"],
        texts: Sequence[str],
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> Float[np.ndarray, "N H W"]:
        """Returns the probability, in [0, 1], that each pixel belongs to the object that the text names.

        Pixels above `sampler.mask_threshold` are in the mask. If the mesh spans several hosts, each passes
        its own examples, and all pass the same number of batches.

        Args:
            images: at the model's training resolution.
            texts: one expression per image.
            indices: index of the noise of each example; 0, 1, ... if None.

        Raises:
            UserError: an expression is empty.
        """
        self._need_texts(texts)
        noise_indices = np.arange(len(texts)) if indices is None else np.asarray(indices)
        prepared = [self.networks.preparer(text, image) for text, image in zip(texts, images, strict=True)]
        rows = (images, stack_inputs(prepared), example_keys(self.seed, noise_indices))
        output = []
        for batch, valid in fixed_batches(len(texts), self.batch_size):
            arguments = to_devices(jax.tree.map(lambda x, b=batch: x[b], rows), self.networks.mesh)
            probability = self._sample(self.networks.params, self.networks.frozen, *arguments)
            output.append(local_rows(probability)[:valid])
        return np.concatenate(output)

    def sample_phrases(
        self,
        images: UInt8[np.ndarray, "N H W 3"],
        texts: Sequence[str],
        indices: Sequence[int] | np.ndarray | None = None,
        *,
        batch_sizes: tuple[int, int] | None = None,
    ) -> tuple[Float[np.ndarray, "N K H W"], Float[np.ndarray, "N K H W"]]:
        """Returns the mean and the standard deviation over the noises of each phrase's probabilities.

        An image is encoded once for all K phrases, and all phrases start from the same noises. The deviation
        is 0 if `sampler.mask_samples` is 1. If the mesh spans several hosts, each passes its own images, and
        all pass the same number of images, the same phrases and the same batch sizes. There is one
        compilation for each pair of batch sizes; the number of noises does not matter. For the errors see
        `__call__`.

        Args:
            images: see `__call__`.
            texts: K phrases; each is segmented in every image.
            indices: see `__call__`.
            batch_sizes: numbers of images to encode and of masks to compute at once, per host; the sampler's
                batch size for both if None.
        """
        self._need_texts(texts)
        networks, samples = self.networks, self.sampler.mask_samples
        mesh, params, frozen = networks.mesh, networks.params, networks.frozen
        image_batch, mask_batch = (host_batch_size(n, mesh) for n in batch_sizes or (self.batch_size,) * 2)
        noise_indices = np.arange(len(images)) if indices is None else np.asarray(indices)
        encoded = []
        for batch, valid in fixed_batches(len(images), image_batch):
            encoded.append(local_rows(self._encode(params, frozen, to_devices(images[batch], mesh)))[:valid])
        latents, keys = np.concatenate(encoded), example_keys(self.seed, noise_indices)
        inputs = stack_inputs([networks.preparer(text, image) for image in images for text in texts])
        means = np.zeros((len(images) * len(texts), *images.shape[1:3]), np.float32)
        squares = np.zeros_like(means)  # sums of squared deviations (Welford)
        for batch, valid in fixed_batches(len(means) * samples, mask_batch):
            pairs, draws = np.divmod(batch, samples)
            image = pairs // len(texts)
            instruction = jax.tree.map(lambda x, pairs=pairs: x[pairs], inputs)
            rows = latents[image], instruction, keys[image], draws.astype(np.int32)
            probabilities = local_rows(self._predict(params, frozen, *to_devices(rows, mesh)))
            for pair, draw, probability in zip(pairs[:valid], draws, probabilities, strict=False):
                change = probability - means[pair]
                means[pair] += change / (draw + 1)
                squares[pair] += change * (probability - means[pair])
        shape = (len(images), len(texts), *images.shape[1:3])
        return means.reshape(shape), np.sqrt(squares / samples).reshape(shape)

    def _need_texts(self, texts: Sequence[str]) -> None:
        for text in texts:
            if not text.strip():
                raise UserError("the phrase is empty; give the object to segment, such as 'the red star'")
        warn_of_long_texts(self.networks.preparer, texts)

    @property
    def program(self) -> Program:
        """The compiled program, which returns probabilities float32 `[B, H, W]` of a batch.

        Its arguments are the trainable parameters, the frozen parameters, images uint8 `[B, H, W, 3]`, the
        prepared texts, and seeds uint32 `[B, 2]` from `example_keys`.
        """
        return self._sample

    def probabilities(self, params, frozen, *batch):
        """Computes the output of `program` without sharding constraints."""
        sampler, model = self.sampler, self.networks.merge(params, frozen)
        passes = sampler.mask_steps, sampler.refine_t, sampler.mask_noise
        return _mean_probability(model, passes, sampler.mask_samples, *batch)


def _sample(graphdef, plan, passes, samples, params, frozen, *batch):
    with tracing_context(plan):
        model = nnx.merge(graphdef, params, frozen)
        return constrain_batch(_mean_probability(model, passes, samples, *batch))


def _mean_probability(
    model: GenMask,
    passes: Passes,
    samples: int,
    images: UInt8[Array, "B H W 3"],
    instruction: dict[str, Array],
    seeds: UInt32[Array, "B 2"],
) -> Float[Array, "B H W"]:
    """Probabilities, averaged over `samples` noises."""
    latents, text = model.vae.encode(to_signed(images)), model.instruction(instruction)
    probabilities = jax.lax.map(
        lambda draw: _probability(model, passes, latents, text, seeds, draw), jnp.arange(samples)
    )
    return probabilities.mean(0)


def _encode(graphdef, plan, params, frozen, images):
    """Latents `[B, h, w, c]` of images."""
    with tracing_context(plan):
        return constrain_batch(nnx.merge(graphdef, params, frozen).vae.encode(to_signed(images)))


def _predict(graphdef, plan, passes, params, frozen, latents, instruction, seeds, draws):
    """Probabilities `[B, H, W]`; each starts from the noise of its seed and its index in `draws`."""
    with tracing_context(plan):
        model = nnx.merge(graphdef, params, frozen)
        text = model.instruction(instruction)
        return constrain_batch(_probability(model, passes, latents, text, seeds, draws))


def _probability(
    model: GenMask,
    passes: Passes,
    latents: Float[Array, "B h w c"],
    text: Embedded,
    seeds: UInt32[Array, "B 2"],
    draw: Int[Array, "*one"],
) -> Float[Array, "B H W"]:
    """Probabilities from one noise per example; `draw` is its index, one for all examples or `[B]`."""
    steps, refine_t, deviation = passes

    def predict(x_t, t):
        t = jnp.full(len(latents), t)
        return flow.predict_x0(x_t, model.velocity(x_t, t, text, latents), t)

    def noise(step):
        if model.objective.mask_source == "image":
            return latents
        return deviation * example_noise(seeds, draw * steps + step, latents.shape[1:])

    x0 = predict(noise(0), 1.0)
    for step in range(1, steps):
        t = jnp.full(len(latents), refine_t)
        x0 = predict(flow.add_noise(x0, noise(step), t), refine_t)
    return model.mask_probabilities(x0)
