"""Seconds and memory for one mask at a published size, with random bfloat16 weights."""

import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

from genmask_jax.benchmarks.random_weights import random_weights
from genmask_jax.config import (
    DIT_SIZES,
    DataConfig,
    InstructionConfig,
    SamplerConfig,
    TrainConfig,
    validate,
)
from genmask_jax.inference.segmenter import Segmenter
from genmask_jax.instruction import factory
from genmask_jax.models.dit import DiTConfig
from genmask_jax.models.genmask import GenMask, Networks, make_networks
from genmask_jax.models.vae import VAE, VAEConfig

TEXT = "the dog on the left"


def make_random_networks(size: str, image_size: int) -> Networks:
    """GenMask at one of DIT_SIZES with Wan's VAE, all of it random bfloat16 but the text encoder (MiniLM).

    Raises:
        UserError: the image size does not fit, or MiniLM is not installed.
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


def stages(networks: Networks) -> dict[str, Callable[[], Any]]:
    """The parts of one mask by name, each a function that runs it."""
    height, width, channels = networks.latent_shape
    image = jax.device_put(np.zeros((1, networks.size, networks.size, 3), np.float32))
    latents = jax.device_put(np.ones((1, height, width, channels), np.float32))
    t = jax.device_put(np.ones(1, np.float32))
    row = networks.preparer(TEXT, None)
    instruction = jax.device_put({name: value[None] for name, value in row.items()})

    def stage(function: Callable[..., jax.Array], *arguments: Any) -> Callable[[], Any]:
        def trace(params: Any, frozen: Any, *arguments: Any) -> jax.Array:
            return function(networks.merge(params, frozen), *arguments)

        compiled = jax.jit(trace)
        return lambda: jax.block_until_ready(compiled(networks.params, networks.frozen, *arguments))

    def one_pass(
        model: GenMask, x: jax.Array, t: jax.Array, picture: jax.Array, instruction: Any
    ) -> jax.Array:
        return model.velocity(x, t, model.instruction(instruction), picture)

    segmenter = Segmenter(networks, SamplerConfig(), batch_size=1)
    picture = np.random.default_rng(0).integers(0, 256, (1, networks.size, networks.size, 3), np.uint8)
    tokens = 2 * height * width // networks.config.model.patch_size**2
    return {
        "VAE encoder": stage(lambda model, x: model.vae.encode(x), image),
        f"DiT, one pass over {tokens} tokens": stage(one_pass, latents, t, latents, instruction),
        "VAE decoder": stage(lambda model, x: model.vae.decode(x), latents),
        "a mask, all of it (Segmenter)": lambda: segmenter(picture, [TEXT]),
    }


def measure(size: str, image_size: int, repeats: int) -> None:
    """Runs the benchmark, prints a table, and last one line of JSON."""
    networks = make_random_networks(size, image_size)
    jax.block_until_ready((networks.params, networks.frozen))
    count = sum(x.size for x in jax.tree.leaves(networks.params))
    table = Table(title=f"DiT of {count / 1e9:.3f} B parameters, {image_size} px, bfloat16")
    for column in ("", "seconds", "first call"):
        table.add_column(column, justify="right" if column else "left")
    seconds = {}
    for name, run in stages(networks).items():
        taken = []
        for _ in range(repeats + 1):
            began = time.perf_counter()
            made = run()
            taken.append(time.perf_counter() - began)
        if not np.isfinite(np.asarray(made, np.float32)).all():
            raise FloatingPointError(f"{name}: not finite")
        seconds[name] = statistics.median(taken[1:])
        table.add_row(name, f"{seconds[name]:.2f}", f"{taken[0]:.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    table.add_row("peak resident memory", f"{peak / 2**30:.2f} GiB", "")
    device = jax.devices()[0]
    line = {"seconds": seconds, "parameters": count, "image_size": image_size, "peak_resident_bytes": peak}
    statistics_of_device = device.memory_stats() or {}
    if "peak_bytes_in_use" in statistics_of_device:
        line["peak_device_bytes"] = statistics_of_device["peak_bytes_in_use"]
        table.add_row("peak device memory", f"{line['peak_device_bytes'] / 2**30:.2f} GiB", "")
    Console().print(table)
    print(json.dumps(line | {"device": device.device_kind}))
