"""Adds noise to a mask and an image, and predicts the clean latents from them in one pass."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8

from genmask_jax import flow
from genmask_jax.config import TimestepsConfig
from genmask_jax.inference.batching import example_keys, example_noise
from genmask_jax.instruction.base import stack_inputs
from genmask_jax.sharding import to_devices, tracing_context
from genmask_jax.system import Networks
from genmask_jax.timesteps import TimestepDistribution
from genmask_jax.utils.images import to_model_size
from genmask_jax.utils.pixels import mask_to_rgb, to_signed

NUM_DRAWS, NUM_BINS = 40_000, 50
PICTURE_NAMES = ("mask, with noise", "mask, from one pass", "image, with noise", "image, from one pass")
"""Names of the pictures that `NoisePreview` returns, in order."""


class NoisePreview:
    """Shows an image and a mask at any noise level, and the model's predictions from them."""

    def __init__(self, networks: Networks):
        self.networks = networks
        self._preview = jax.jit(self._trace)

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"], phrase: str, t: float
    ) -> UInt8[np.ndarray, "4 size size 3"]:
        """Returns the pictures of PICTURE_NAMES at noise level `t` (0 is clean, 1 is noise).

        The mask is predicted from the image and the phrase, the image only from the phrase. Pictures have the
        model's size.
        """
        networks, size = self.networks, self.networks.size
        levels = to_model_size(np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=-1), size)
        small = to_model_size(image, size)
        texts = [stack_inputs([networks.preparer(phrase, condition)]) for condition in (small, None)]
        binary = (levels[..., 0] > 127).astype(np.uint8)
        batch = (
            small[None],
            binary[None],
            *texts,
            example_keys(0, np.zeros(1, int)),
            np.full(1, t, np.float32),
        )
        pictures = self._preview(networks.params, networks.frozen, *to_devices(batch, networks.mesh))
        return np.round(np.clip(jax.device_get(pictures) * 127.5 + 127.5, 0, 255)).astype(np.uint8)

    def _trace(self, params: Any, frozen: Any, image, mask, mask_text, image_text, seeds, t):
        with tracing_context(self.networks.plan):
            model = self.networks.merge(params, frozen)
            latents = model.vae.encode(to_signed(image))
            noise = example_noise(seeds, 0, latents.shape[1:])
            pictures = []
            for x0, text, condition in (
                (model.vae.encode(mask_to_rgb(mask)), mask_text, latents),
                (latents, image_text, None),
            ):
                x_t = flow.add_noise(x0, noise, t)
                velocity = model.velocity(x_t, t, model.instruction(text), condition)
                pictures += [x_t, flow.predict_x0(x_t, velocity, t)]
            return model.vae.decode(jnp.concatenate(pictures))


def densities(timesteps: TimestepsConfig) -> dict[str, np.ndarray]:
    """Returns densities of noise levels in NUM_BINS bins of [0, 1], by name of task and distribution."""
    histograms = {}
    for task, distribution in (("masks", timesteps.segment), ("images", timesteps.generate)):
        histograms[f"{task} ({distribution.name})"] = np.histogram(
            _sample(distribution), NUM_BINS, (0.0, 1.0), density=True
        )[0]
    return histograms


def quartiles(distribution: TimestepDistribution) -> tuple[float, float]:
    """Returns the first and third quartile of a distribution."""
    low, high = np.quantile(_sample(distribution), (0.25, 0.75))
    return float(low), float(high)


def _sample(distribution: TimestepDistribution) -> np.ndarray:
    return np.asarray(distribution.sample(jax.random.key(0), (NUM_DRAWS,)))
