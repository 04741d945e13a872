"""The losses of masks, one of which `config.objective.mask_loss` names, and the weights of small objects."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, UInt8

from genmask_jax import flow
from genmask_jax.system import GenMask

MIN_UNWEIGHTED_AREA = 0.1
"""Objects that cover at least this share of the image get no extra weight."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The velocity that the network predicts at `x_t`, noise level `t`, between `x0` and `noise`."""

    velocity: Float[Array, "B h w c"]
    x_t: Float[Array, "B h w c"]
    t: Float[Array, "B"]
    x0: Float[Array, "B h w c"]
    noise: Float[Array, "B h w c"]

    @property
    def predicted_x0(self) -> Float[Array, "B h w c"]:
        """The clean latents that the velocity implies."""
        return flow.predict_x0(self.x_t, self.velocity, self.t)


def velocity_errors(model: GenMask, one: Prediction, masks: Array | None) -> Float[Array, "B h w c"]:
    """Squared errors of the velocity."""
    del model, masks
    return jnp.square(one.velocity - flow.velocity_target(one.x0, one.noise))


def x0_errors(model: GenMask, one: Prediction, masks: Array | None) -> Float[Array, "B h w c"]:
    """Squared errors of the predicted clean latents: those of the velocity, times t squared."""
    del model, masks
    return jnp.square(one.predicted_x0 - one.x0)


def cross_entropies(model: GenMask, one: Prediction, masks: UInt8[Array, "B H W"]) -> Float[Array, "B H W 1"]:
    """Cross-entropy of each pixel, with the logits that the model reads from the predicted clean latents."""
    logits = model.mask_logits(one.predicted_x0)
    return optax.sigmoid_binary_cross_entropy(logits, masks.astype(jnp.float32))[..., None]


MASK_LOSSES: dict[str, Callable[..., Float[Array, "B rows columns channels"]]] = {
    "velocity": velocity_errors,
    "x0": x0_errors,
    "decoder_cross_entropy": cross_entropies,
    "linear_cross_entropy": cross_entropies,
}
"""(model, prediction, masks) -> errors, whose mean is the loss; by name."""


def small_mask_weights(
    masks: UInt8[Array, "B H W"], grid: tuple[int, int], max_extra_weight: float
) -> Float[Array, "B h w"]:
    """Loss weights of mask latents: 1 outside the object, and more than 1 inside a small object.

    A thin object covers about 1 % of the mask, so an all-black prediction has almost no loss, and the model
    learns that first. The total weight inside a small object equals that of an object that covers
    MIN_UNWEIGHTED_AREA of the image, but no weight exceeds `1 + max_extra_weight`. (Class balancing; not in
    the paper.)
    """
    batch, height, width = masks.shape
    rows, columns = grid
    share = masks.astype(jnp.float32).reshape(batch, rows, height // rows, columns, width // columns)
    share = share.mean((2, 4))
    area = jnp.maximum(share.mean((1, 2), keepdims=True), 1e-6)
    return 1 + share * jnp.clip(MIN_UNWEIGHTED_AREA / area - 1, 0.0, max_extra_weight)
