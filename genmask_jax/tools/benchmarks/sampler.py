"""Measures time and memory of mask sampling at a published size, with random bfloat16 weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genmask_jax.config import DIT_SIZES, DataConfig, SamplerConfig, TrainConfig
from genmask_jax.config.checks import validate
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.instruction import factory
from genmask_jax.instruction.base import stack_inputs
from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.models.dit import DiTConfig
from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.sharding import tracing_context
from genmask_jax.system import GenMask, Networks, make_networks
from genmask_jax.tools.benchmarks.random_weights import random_weights
from genmask_jax.tools.benchmarks.timing import Stages, report_stages

TEXT = "the dog on the left"


def make_random_networks(size: str, image_size: int) -> Networks:
    """Builds GenMask at one of DIT_SIZES, with random bfloat16 weights except for the text encoder, MiniLM.

    Raises:
        UserError: the image size is invalid, or MiniLM is not installed.
    """
    config = TrainConfig(
        name=f"random_{size}",
        vae="",
        model=DiTConfig(**DIT_SIZES[size]),
        data=DataConfig(size=image_size),
        instruction=InstructionConfig(name="minilm"),
        compute_dtype="bfloat16",
    )
    validate(config)
    vae_config, encoder = VAEConfig(), factory.build(config.instruction, "")
    vae_state = random_weights(
        nnx.eval_shape(lambda: nnx.state(VAE(vae_config, rngs=nnx.Rngs(0)))), jnp.bfloat16
    )
    networks = make_networks(config, vae_config, vae_state, encoder)
    networks.params = random_weights(networks.abstract_params(), jnp.bfloat16)
    return networks


def stages(networks: Networks, batch_size: int) -> Stages:
    """Returns the stages of sampling a batch of masks, by name."""
    height, width, channels = networks.latent_shape
    side = networks.size
    image = jax.device_put(np.zeros((batch_size, side, side, 3), np.float32))
    latents = jax.device_put(np.ones((batch_size, height, width, channels), np.float32))
    t = jax.device_put(np.ones(batch_size, np.float32))
    row = networks.preparer(TEXT, None)
    instruction = jax.device_put(stack_inputs([row] * batch_size))

    def stage(function: Callable[..., jax.Array], *arguments: Any) -> Callable[[], Any]:
        def trace(params: Any, frozen: Any, *arguments: Any) -> jax.Array:
            with tracing_context(networks.plan):
                return function(networks.merge(params, frozen), *arguments)

        compiled = jax.jit(trace)
        return lambda: jax.block_until_ready(compiled(networks.params, networks.frozen, *arguments))

    def one_pass(
        model: GenMask, x: jax.Array, t: jax.Array, latents: jax.Array, instruction: Any
    ) -> jax.Array:
        return model.velocity(x, t, model.instruction(instruction), latents)

    sampler = MaskSampler(networks, SamplerConfig(), batch_size=batch_size)
    images = np.random.default_rng(0).integers(0, 256, (batch_size, side, side, 3), np.uint8)
    tokens = 2 * height * width // networks.config.model.patch_size**2
    return {
        "VAE encoder": stage(lambda model, x: model.vae.encode(x), image),
        f"DiT, one pass over {tokens} tokens": stage(one_pass, latents, t, latents, instruction),
        "VAE decoder": stage(lambda model, x: model.vae.decode(x), latents),
        "whole masks (MaskSampler)": lambda: sampler(images, [TEXT] * batch_size),
    }


def measure(size: str, image_size: int, batch_size: int, repeats: int) -> dict[str, Any]:
    """Runs the benchmark; prints a table, then a line of JSON, which it also returns."""
    networks = make_random_networks(size, image_size)
    jax.block_until_ready((networks.params, networks.frozen))
    count = sum(x.size for x in jax.tree.leaves(networks.params))
    title = f"DiT of {count / 1e9:.3f} B parameters, batch {batch_size} at {image_size} px, bfloat16"
    columns = {"ours": stages(networks, batch_size)}
    options = {"parameters": count, "image_size": image_size, "batch_size": batch_size}
    return report_stages(title, columns, repeats, options)
