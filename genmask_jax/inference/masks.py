"""Converts predicted probabilities to masks at the image's own size, with the no-target rule."""

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from genmask_jax.config import SamplerConfig

RESIZE = "bilinear to a square; probabilities bilinear back, then thresholded"
"""The resizing method, recorded with every score."""


def to_image_size(probability: Float[np.ndarray, "h w"], shape: tuple[int, int]) -> Float[np.ndarray, "H W"]:
    """Resizes probabilities to an image's own (height, width); threshold them afterwards."""
    if probability.shape == shape:
        return probability
    image = Image.fromarray(probability.astype(np.float32))
    height, width = shape
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def to_mask(
    probability: Float[np.ndarray, "h w"], shape: tuple[int, int], sampler: SamplerConfig
) -> tuple[Bool[np.ndarray, "H W"], float]:
    """Returns the mask at an image's own (height, width), and its score: the mean probability of its pixels.

    The mask is empty if `is_no_target` is true.
    """
    probability = to_image_size(probability, shape)
    mask = probability > sampler.mask_threshold
    score = float(probability[mask].mean(dtype=np.float64)) if mask.any() else 0.0
    if is_no_target(int(np.count_nonzero(mask)), mask.size, score, sampler):
        mask = np.zeros_like(mask)
    return mask, score


def label_map(
    probabilities: Float[np.ndarray, "K size size"], shape: tuple[int, int], threshold: float
) -> Int[np.ndarray, "H W"]:
    """Returns the index of the most probable phrase at each pixel, or -1 for none.

    Args:
        probabilities: probabilities of K phrases, at the model's size.
        shape: (height, width) of the image.
        threshold: a pixel where no probability is above this has no phrase.
    """
    return most_probable(np.stack([to_image_size(each, shape) for each in probabilities]), threshold)


def most_probable(probabilities: Float[np.ndarray, "K H W"], threshold: float) -> Int[np.ndarray, "H W"]:
    """The index of the largest of K probabilities at each pixel; -1 if none is above the threshold."""
    return np.where(probabilities.max(0) > threshold, probabilities.argmax(0), -1)


def is_no_target(area: int, pixels: int, score: float, sampler: SamplerConfig) -> bool:
    """Whether a mask is so small or so uncertain that it counts as "no target".

    Args:
        area: number of pixels of the mask.
        pixels: number of pixels of the image.
        score: mean probability of the mask's pixels; 0 if there are none.
        sampler: holds the thresholds `no_target_area` and `no_target_score`; choose them on a val split.
    """
    return area <= sampler.no_target_area * pixels or score < sampler.no_target_score
