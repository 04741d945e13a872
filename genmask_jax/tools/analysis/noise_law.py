"""Noise levels that fit the latents of a dataset, from their spectrum alone.

A principal component of whole latents (all cells and channels) with standard deviation s is as strong as the
noise where (1 - t) s = t, which is logit(t) = log s. At higher noise levels it is hidden, and at lower ones
it is decided. A law for images that covers each level in proportion to the variance that is decided there has
the mean and the standard deviation of log s over the components, weighted by their variance.

Latents that are k times as large shift the law by log k, as the timestep shift k does that Esser et al. 2024
use for resolutions.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

MASK_SIGNAL = 0.06
"""Deviation of the strongest component of noisy masks, relative to the noise, at the median noise level of
masks. `a=0.01` fits the model in the package."""


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Log standard deviations of the principal components of whole latents, weighted by variance.

    mean, std: of the log standard deviations.
    largest: the largest standard deviation.
    """

    mean: float
    std: float
    largest: float


def spectrum(latents: Float[np.ndarray, "N h w C"]) -> Spectrum:
    """The spectrum of the latents of N scenes. Few scenes raise the mean: 256 by about 0.1 in ReferShapes."""
    rows = latents.reshape(len(latents), -1).astype(np.float64)
    rows -= rows.mean(0)
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    variances = np.linalg.eigvalsh(gram / (len(rows) - 1))
    variances = variances[variances > 1e-8 * variances[-1]]
    weights, logs = variances / variances.sum(), np.log(variances) / 2
    mean = float(weights @ logs)
    std = float(np.sqrt(weights @ np.square(logs - mean)))
    return Spectrum(mean, std, float(np.sqrt(variances[-1])))


def fitting_fields(masks: Spectrum, images: Spectrum) -> dict[str, float]:
    """Fields of a training config that fit the latents of masks and of images."""
    return {
        "timesteps.segment.a": MASK_SIGNAL / (MASK_SIGNAL + masks.largest),
        "timesteps.generate.mean": images.mean,
        "timesteps.generate.std": images.std,
        "sampler.shift": float(np.exp(images.mean)),
    }
