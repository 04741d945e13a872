"""Measures time and memory of Wan 2.1's VAE, with random weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.tools.benchmarks.random_weights import random_weights
from genmask_jax.tools.benchmarks.timing import report_stages
from genmask_jax.utils.errors import UserError


def measure(image_size: int, batch_size: int, dtype: str, repeats: int) -> dict[str, Any]:
    """Runs the benchmark; prints a table, then a line of JSON, which it also returns.

    Raises:
        UserError: the image size is not a multiple of the stride of the VAE.
    """
    config, weight_dtype = VAEConfig(), jnp.dtype(dtype)
    if image_size % config.stride:
        raise UserError(f"--image_size={image_size} is not a multiple of the VAE's stride {config.stride}")
    graph, shapes = nnx.split(nnx.eval_shape(lambda: VAE(config, dtype=weight_dtype, rngs=nnx.Rngs(0))))
    state = random_weights(shapes, weight_dtype)
    side = image_size // config.stride
    images = jax.device_put(np.zeros((batch_size, image_size, image_size, 3), np.float32))
    latents = jax.device_put(np.ones((batch_size, side, side, config.channels), np.float32))
    encode = jax.jit(lambda state, x: nnx.merge(graph, state).encode(x))
    decode = jax.jit(lambda state, x: nnx.merge(graph, state).decode(x))
    stages = {
        "encoder": lambda: jax.block_until_ready(encode(state, images)),
        "decoder": lambda: jax.block_until_ready(decode(state, latents)),
    }
    title = f"Wan 2.1 VAE, batch {batch_size} at {image_size} px, {dtype}"
    options = {"image_size": image_size, "batch_size": batch_size, "dtype": dtype}
    return report_stages(title, {"ours": stages}, repeats, options)
