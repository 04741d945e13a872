"""The VAE whose latents are analysed: a trained one, or one of random weights as a control."""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx
from jaxtyping import Float, UInt8

from genmask_jax.checkpoints.runs import load_vae, read_vae_config
from genmask_jax.inference.batching import fixed_batches
from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.pretrained import directory_of
from genmask_jax.utils.pixels import to_signed

RANDOM, WAN = "random:", "random:wan"
"""Prefix of a VAE with random weights, and the name of such a VAE of the shape of Wan 2.1's."""
BATCH_SIZE = 16
DEFAULT_SIZE = 128
"""Side of the images in pixels if the VAE's directory does not have the config of a run."""


class Autoencoder:
    """Encodes and decodes any number of pictures, in batches of fixed size."""

    def __init__(self, config: VAEConfig, state: Any):
        self.config, self.state = config, state
        graph = nnx.graphdef(nnx.eval_shape(lambda: VAE(config, rngs=nnx.Rngs(0))))
        self._encode = jax.jit(lambda state, x: nnx.merge(graph, state).encode(to_signed(x)))
        self._decode = jax.jit(lambda state, x: nnx.merge(graph, state).decode(x))

    def encode(self, pictures: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N h w C"]:
        """The normalised latents, float32."""
        return self._in_batches(self._encode, pictures)

    def decode(self, latents: Float[np.ndarray, "N h w C"]) -> Float[np.ndarray, "N H W 3"]:
        """The pictures of normalised latents, float32, roughly in [-1, 1]."""
        return self._in_batches(self._decode, latents)

    def _in_batches(self, program: Callable[..., jax.Array], inputs: np.ndarray) -> np.ndarray:
        outputs = []
        for indices, valid in fixed_batches(len(inputs), BATCH_SIZE):
            outputs.append(jax.device_get(program(self.state, jax.device_put(inputs[indices])))[:valid])
        return np.concatenate(outputs)

    def normalise(self, pictures: UInt8[np.ndarray, "N H W 3"]) -> None:
        """Sets the mean and standard deviation of each latent channel to those of these pictures."""
        latents = self.encode(pictures)
        mean, std = self.state["latents_mean"], self.state["latents_std"]
        mean[...] = mean[...] + std[...] * latents.mean((0, 1, 2))
        std[...] = std[...] * latents.std((0, 1, 2))


def open_autoencoder(name: str, seed: int) -> Autoencoder:
    """Opens a VAE.

    Args:
        name: directory of a run of launch/train_vae.py or launch/train.py, of imported weights or of a packed
            model; a model in the package; random:NAME for random weights in the shape of such a VAE, or
            random:wan in the shape of Wan 2.1's. Latents of random weights must be normalised first.
        seed: seed of random weights.

    Raises:
        UserError: there is no such VAE.
    """
    if not name.startswith(RANDOM):
        return Autoencoder(*load_vae(directory_of(name, "vae")))
    config = VAEConfig() if name == WAN else read_vae_config(_directory(name))
    return Autoencoder(config, jax.jit(lambda: nnx.state(VAE(config, rngs=nnx.Rngs(seed))))())


def image_size(name: str) -> int:
    """The side of the images that a VAE (see `open_autoencoder`) was trained on, pixels; else 128."""
    path = None if name == WAN else _directory(name) / "config.json"
    config = json.loads(path.read_text()) if path and path.exists() else {}
    return config.get("data", {}).get("size", DEFAULT_SIZE)


def _directory(name: str) -> epath.Path:
    return directory_of(name.removeprefix(RANDOM), "vae")
