"""Segmentation: one pass from pure noise to a mask, which may be refined, or averaged over noises."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8, UInt32

from genmask_jax import flow
from genmask_jax.config import SamplerConfig
from genmask_jax.config.checks import with_refinement
from genmask_jax.inference.batching import (
    example_keys,
    example_noise,
    fixed_batches,
    host_batch_size,
    own_rows,
)
from genmask_jax.inference.programs import Program, shared_program
from genmask_jax.instruction.base import Embedded, stack_inputs, warn_of_long_texts
from genmask_jax.sharding import constrain_batch, to_devices, tracing_on
from genmask_jax.system import GenMask, Networks
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.pixels import rgb_to_probability, to_signed


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
        model = networks.graph, networks.plan
        refining = self.sampler.mask_steps, self.sampler.refine_t
        self._sample = shared_program(_sample, *model, *refining, self.sampler.mask_samples)
        self._encode = shared_program(_encode, *model)
        self._decide = shared_program(_decide, *model, *refining)

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
        each pair of batch sizes, whatever the number of noises. For the arguments and errors see `__call__`.

        Args:
            images, texts, indices: see `__call__`; every text is asked of every image.
            batch_sizes: how many images are encoded at once, and how many masks are computed at once, per
                host; the sampler's own for both if None.
        """
        self._need_texts(texts)
        networks, samples = self.networks, self.sampler.mask_samples
        mesh, params, frozen = networks.mesh, networks.params, networks.frozen
        of_images, of_masks = (host_batch_size(n, mesh) for n in batch_sizes or (self.batch_size,) * 2)
        numbers = np.arange(len(images)) if indices is None else np.asarray(indices)
        encoded = []
        for batch, real in fixed_batches(len(images), of_images):
            encoded.append(own_rows(self._encode(params, frozen, to_devices(images[batch], mesh)))[:real])
        latents, keys = np.concatenate(encoded), example_keys(self.seed, numbers)
        inputs = stack_inputs([networks.preparer(text, image) for image in images for text in texts])
        means = np.zeros((len(images) * len(texts), *images.shape[1:3]), np.float32)
        squares = np.zeros_like(means)  # sums of squared deviations (Welford)
        for batch, real in fixed_batches(len(means) * samples, of_masks):
            pairs, draws = np.divmod(batch, samples)
            of_image = pairs // len(texts)
            instruction = jax.tree.map(lambda x, pairs=pairs: x[pairs], inputs)
            rows = latents[of_image], instruction, keys[of_image], draws.astype(np.int32)
            found = own_rows(self._decide(params, frozen, *to_devices(rows, mesh)))
            for pair, draw, one in zip(pairs[:real], draws, found, strict=False):
                change = one - means[pair]
                means[pair] += change / (draw + 1)
                squares[pair] += change * (one - means[pair])
        shape = (len(images), len(texts), *images.shape[1:3])
        return means.reshape(shape), np.sqrt(squares / samples).reshape(shape)

    def _need_texts(self, texts: Sequence[str]) -> None:
        for text in texts:
            if not text.strip():
                raise UserError("the phrase is empty; say what to segment, such as 'the red star'")
        warn_of_long_texts(self.networks.preparer, texts)

    @property
    def program(self) -> Program:
        """What `__call__` runs: probabilities `[B, H, W]` of a batch.

        Its arguments are the parameters, the frozen ones, images uint8 `[B, H, W, 3]`, prepared texts, and
        seeds uint32 `[B, 2]` from `example_keys`.
        """
        return self._sample

    def probabilities(self, params, frozen, *batch):
        """What `program` computes, without sharding constraints."""
        sampler, model = self.sampler, self.networks.merge(params, frozen)
        return _mean(model, sampler.mask_steps, sampler.refine_t, sampler.mask_samples, *batch)


def _sample(graph, plan, steps, refine_t, samples, params, frozen, *batch):
    with tracing_on(plan):
        return constrain_batch(_mean(nnx.merge(graph, params, frozen), steps, refine_t, samples, *batch))


def _mean(
    model: GenMask,
    steps: int,
    refine_t: float,
    samples: int,
    images: UInt8[Array, "B H W 3"],
    instruction: dict[str, Array],
    seeds: UInt32[Array, "B 2"],
) -> Float[Array, "B H W"]:
    """Probabilities, the mean over `samples` noises."""
    latents, text = model.vae.encode(to_signed(images)), model.instruction(instruction)
    masks = jax.lax.map(
        lambda draw: _mask(model, steps, refine_t, latents, text, seeds, draw), jnp.arange(samples)
    )
    return masks.mean(0)


def _encode(graph, plan, params, frozen, images):
    """Latents `[B, h, w, c]` of images."""
    with tracing_on(plan):
        return constrain_batch(nnx.merge(graph, params, frozen).vae.encode(to_signed(images)))


def _decide(graph, plan, steps, refine_t, params, frozen, latents, instruction, seeds, draws):
    """Probabilities `[B, H, W]`, each from the noise that its seed and its number in `draws` give."""
    with tracing_on(plan):
        model = nnx.merge(graph, params, frozen)
        text = model.instruction(instruction)
        return constrain_batch(_mask(model, steps, refine_t, latents, text, seeds, draws))


def _mask(
    model: GenMask,
    steps: int,
    refine_t: float,
    latents: Float[Array, "B h w c"],
    text: Embedded,
    seeds: UInt32[Array, "B 2"],
    draw: Int[Array, "*one"],
) -> Float[Array, "B H W"]:
    """Probabilities from one noise each; `draw` is its number, of all examples or of each (`[B]`)."""

    def predict(x_t, t):
        t = jnp.full(len(latents), t)
        return flow.predict_x0(x_t, model.velocity(x_t, t, text, latents), t)

    def noise(step):
        return example_noise(seeds, draw * steps + step, latents.shape[1:])

    x0 = predict(noise(0), 1.0)
    for step in range(1, steps):
        t = jnp.full(len(latents), refine_t)
        x0 = predict(flow.add_noise(x0, noise(step), t), refine_t)
    return rgb_to_probability(model.vae.decode(x0))
