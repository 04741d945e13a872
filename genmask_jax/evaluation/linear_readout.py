"""Masks read from their latents by a linear map, in place of the VAE's decoder.

The map takes the latent of a cell to the stride x stride pixels of that cell. It is fitted in closed form
(ridge regression) to the VAE's encodings of training masks; nothing is trained.
"""

import dataclasses
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float, UInt8

from genmask_jax.data.examples import SegmentExample, Source
from genmask_jax.evaluation.metrics import intersection_union, summarize
from genmask_jax.inference.batching import fixed_batches, local_rows
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.inference.programs import Program, shared_program
from genmask_jax.models.layers import Linear
from genmask_jax.sharding import constrain_batch, to_devices, tracing_context
from genmask_jax.system import GREY_LOGIT, GenMask, Networks
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.pixels import mask_to_rgb

NUM_MASKS = 512
"""Number of training masks that the map is fitted to."""
RIDGE = 1e-3
"""Penalty of squared weights, relative to the mean squared error; latents have a variance of about 1."""


def with_linear_readout(
    segmenter: MaskSampler, source: Source[SegmentExample]
) -> tuple[MaskSampler, dict[str, Any]]:
    """Returns a sampler of the same latents that reads masks by a linear map, and a report on both readouts.

    A pixel that the map takes to y, from -1 (background) to 1 (object), has the probability
    sigmoid(GREY_LOGIT y).

    Args:
        segmenter: the model.
        source: the training split, at the model's resolution.

    Returns:
        The sampler; and `train_masks`, the number of masks, with `decoder` and `linear`, each with
        `ms_per_mask` and `encoded_mIoU`, the mIoU of masks that are read from their own encodings.

    Raises:
        UserError: the model has no decoder for masks.
    """
    networks = segmenter.networks
    model: Any = networks.merge(networks.params, networks.frozen)
    if not isinstance(model, GenMask) or model.mask_readout is not None:
        raise UserError("--mask_readout=linear is for models whose masks the VAE decodes; leave it out")
    masks = _read_masks(source)
    latents = _encode_masks(networks, masks, segmenter.batch_size)
    linear = _replace_decoder(networks, model, *fit(latents, masks))
    readouts = {"decoder": networks, "linear": linear}
    report = {"train_masks": len(masks), **_compare(readouts, latents, masks, segmenter.batch_size)}
    sampler = MaskSampler(linear, segmenter.sampler, batch_size=segmenter.batch_size, seed=segmenter.seed)
    return sampler, report


def fit(
    latents: Float[np.ndarray, "B h w C"], masks: UInt8[np.ndarray, "B H W"]
) -> tuple[Float[np.ndarray, "C N"], Float[np.ndarray, "N"]]:
    """The kernel and bias that take a cell's latent to its N = stride x stride pixels: -1, 1 for the object.

    Args:
        latents: encodings of the masks.
        masks: 1 for the object, 0 for the rest.
    """
    count, rows, columns, channels = latents.shape
    stride = masks.shape[1] // rows
    cells = masks.reshape(count, rows, stride, columns, stride).swapaxes(2, 3)
    pixels = cells.reshape(-1, stride**2).astype(np.float32) * 2 - 1
    inputs = latents.reshape(-1, channels)
    mean, bias = inputs.mean(0, dtype=np.float64), pixels.mean(0, dtype=np.float64)
    centred = inputs - mean.astype(np.float32)
    covariance = (centred.T @ centred).astype(np.float64) / len(inputs)
    products = (centred.T @ pixels).astype(np.float64) / len(inputs)
    kernel = np.linalg.solve(covariance + RIDGE * np.eye(channels), products)
    return kernel, bias - mean @ kernel


def _read_masks(source: Source[SegmentExample]) -> UInt8[np.ndarray, "N H W"]:
    """NUM_MASKS masks from all over the source, without empty ones."""
    count = min(NUM_MASKS, len(source))
    masks = (source[i * len(source) // count]["mask"] for i in range(count))
    return np.stack([mask for mask in masks if mask.any()])


def _encode_masks(
    networks: Networks, masks: UInt8[np.ndarray, "N H W"], batch_size: int
) -> Float[np.ndarray, "N h w C"]:
    program = shared_program(_encode, networks.graphdef, networks.plan)
    return np.concatenate(
        [
            local_rows(program(networks.params, networks.frozen, to_devices(masks[batch], networks.mesh)))[:n]
            for batch, n in fixed_batches(len(masks), batch_size)
        ]
    )


def _encode(graphdef, plan, params, frozen, masks):
    """Latents `[B, h, w, C]` of masks."""
    with tracing_context(plan):
        return constrain_batch(nnx.merge(graphdef, params, frozen).vae.encode(mask_to_rgb(masks)))


def _replace_decoder(networks: Networks, model: GenMask, kernel: np.ndarray, bias: np.ndarray) -> Networks:
    """The networks with the map as the linear layer of a model that is trained with one."""
    readout = Linear(*kernel.shape, dtype=jnp.float32, rngs=nnx.Rngs(0))
    replicated = NamedSharding(networks.mesh, PartitionSpec())
    scaled = [(GREY_LOGIT * x).astype(np.float32) for x in (kernel, bias)]
    readout.kernel, readout.bias = (nnx.Param(jax.device_put(x, replicated)) for x in scaled)

    def is_trained(path: tuple[Any, ...], leaf: Any) -> bool:
        return path[0] == "mask_readout" or networks.plan.is_trained(path, leaf)

    objective = dataclasses.replace(model.objective, mask_loss="linear_cross_entropy")
    linear = GenMask(model.dit, model.vae, model.instruction, objective, readout)
    graphdef, params, frozen = nnx.split(linear, is_trained, ...)
    return dataclasses.replace(networks, graphdef=graphdef, params=params, frozen=frozen)


def _compare(
    readouts: dict[str, Networks],
    latents: Float[np.ndarray, "N h w C"],
    masks: UInt8[np.ndarray, "N H W"],
    batch_size: int,
) -> dict[str, dict[str, float]]:
    """Speed and mIoU of each readout of the masks' encodings; the readouts take turns, batch by batch."""
    seconds, overlaps = ({name: [] for name in readouts} for _ in range(2))
    programs: dict[str, Program] = {
        name: shared_program(_read, networks.graphdef, networks.plan) for name, networks in readouts.items()
    }
    for batch, valid in fixed_batches(len(masks), batch_size):
        for name, networks in readouts.items():
            rows = jax.block_until_ready(to_devices(latents[batch], networks.mesh))
            start = time.perf_counter()
            output = jax.block_until_ready(programs[name](networks.params, networks.frozen, rows))
            seconds[name].append(time.perf_counter() - start)
            predicted = local_rows(output)[:valid] > 0.5
            overlaps[name] += map(intersection_union, predicted, masks[batch[:valid]])
    return {
        name: {
            # The first batch compiles.
            "ms_per_mask": 1000 * statistics.median(seconds[name][1:] or seconds[name]) / batch_size,
            "encoded_mIoU": summarize(*zip(*overlaps[name], strict=True))["mIoU"],
        }
        for name in readouts
    }


def _read(graphdef, plan, params, frozen, latents):
    """Probabilities `[B, H, W]` of latents of masks."""
    with tracing_context(plan):
        return constrain_batch(nnx.merge(graphdef, params, frozen).mask_probabilities(latents))
