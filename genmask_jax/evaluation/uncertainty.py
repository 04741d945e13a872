"""Calibration of mask probabilities, and whether a model's uncertainty tells where it is wrong.

A pixel has up to two uncertainties, both standard deviations in [0, 0.5]:

- "probability": sqrt(p (1 - p)) for the probability p, averaged over the noises;
- "spread": of the probability over the noises, if there are several.

The uncertainty of a mask is the sum of its pixels' uncertainties, s, relative to its area: s / (s + area).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from genmask_jax.config import SamplerConfig
from genmask_jax.data.examples import ScoredExample, Source
from genmask_jax.data.masks import IGNORE
from genmask_jax.evaluation.metrics import intersection_union
from genmask_jax.evaluation.segmentation import read_batches
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.inference.masks import to_image_size, to_mask
from genmask_jax.sharding import part_of_batch
from genmask_jax.utils.hosts import gather_rows

NUM_BINS = 15
"""Equal bins of probabilities, for the calibration."""
NUM_LEVELS = 200
"""Equal levels of uncertainty, for the risk of pixels."""
MAX_POINTS = 60
"""Maximum number of points of a curve."""


def evaluate_uncertainty(
    segmenter: MaskSampler, source: Source[ScoredExample], count: int, noises: int
) -> dict[str, Any]:
    """Scores the uncertainty of the first `count` examples; hosts share them.

    Args:
        segmenter: the model, at the size of the source's images.
        source: the examples.
        count: number of examples.
        noises: number of noises per example.

    Returns:
        See `summarize_uncertainty`, with `noises`.
    """
    count, part = min(count, len(source)), part_of_batch(segmenter.networks.mesh)
    rows = {}
    for indices, valid, batch in read_batches(source, count, segmenter.batch_size, part):
        images = np.stack([example["image"] for example in batch])
        texts = [example["text"] for example in batch]
        draws = [segmenter(images, texts, indices + i * count) for i in range(noises)]
        examples = zip(indices.tolist(), batch, np.stack(draws, axis=1), strict=True)
        for index, example, probabilities in list(examples)[:valid]:
            rows[index] = measure(probabilities, example["mask"], segmenter.sampler)
    return {"noises": noises, **summarize_uncertainty(gather_rows(rows))}


def measure(
    draws: Float[np.ndarray, "N h w"], truth: UInt8[np.ndarray, "H W"], sampler: SamplerConfig
) -> dict[str, Any]:
    """What `summarize_uncertainty` needs of one example, as JSON.

    Args:
        draws: probabilities in [0, 1] of N noises.
        truth: 1 for the object, 0 for the rest, 255 for ignored pixels.
        sampler: how a mask is made from the mean probability.
    """
    mask, _ = to_mask(draws.mean(0), truth.shape, sampler)
    p = to_image_size(draws.mean(0), truth.shape)
    uncertainties = {"probability": np.sqrt(np.maximum(p * (1 - p), 0))}
    if len(draws) > 1:
        uncertainties["spread"] = to_image_size(draws.std(0), truth.shape)
    known = truth != IGNORE
    target, wrong = truth[known] == 1, (mask != (truth == 1))[known]
    overlap, union = intersection_union(mask, truth)
    row: dict[str, Any] = {
        "iou": overlap / max(union, 1),
        "calibration": _histogram(p[known], NUM_BINS, np.ones_like(p[known]), p[known], target),
    }
    for name, values in uncertainties.items():
        total = float(values[known].sum())
        row[name] = {
            "mask": total / max(total + float(mask[known].sum()), 1e-9),
            "pixels": _histogram(2 * values[known], NUM_LEVELS, np.ones_like(p[known]), wrong),
        }
    return row


def _histogram(x: np.ndarray, bins: int, *weights: np.ndarray) -> list[list[float]]:
    """The sum of each of the weights in equal bins of x, from 0 to 1."""
    index = np.minimum((x * bins).astype(int), bins - 1)
    return [np.bincount(index, weight, bins).tolist() for weight in weights]


def summarize_uncertainty(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The scores of examples from `measure`.

    Returns:
        `ece`, the expected calibration error of pixels: the mean distance between the mean probability of a
        bin and the share of its pixels that are in the object, weighted by pixels; `bins`, their
        `probability`, `share` and `pixels`; for each kind of uncertainty, `risk_coverage` of `pixels`, whose
        risk is 1 if they are wrong, and of `masks`, whose risk is 1 - IoU.
    """
    pixels, probability, share = np.sum([row["calibration"] for row in rows], axis=0)
    bins = [
        {"probability": p / n, "share": s / n, "pixels": int(n)}
        for n, p, s in zip(pixels.tolist(), probability.tolist(), share.tolist(), strict=True)
        if n
    ]
    result = {"ece": float(np.abs(probability - share).sum() / max(pixels.sum(), 1)), "bins": bins}
    for name in ("probability", "spread"):
        if name in rows[0]:
            counts, wrong = np.sum([row[name]["pixels"] for row in rows], axis=0)
            levels, level = np.unique([row[name]["mask"] for row in rows], return_inverse=True)
            risks = np.bincount(level, [1 - row["iou"] for row in rows], len(levels))
            result[name] = {
                "pixels": risk_coverage(counts, wrong),
                "masks": risk_coverage(np.bincount(level), risks),
            }
    return result


def risk_coverage(counts: np.ndarray, risks: np.ndarray) -> dict[str, Any]:
    """The mean risk of the most certain items, by the share of all items that they are (coverage).

    Args:
        counts: number of items of each level of uncertainty, from the most certain level on.
        risks: the sum of their risks.

    Returns:
        `risk` of all items; `aurc`, the area under the curve, which is `risk` if the uncertainty is random
        and lower if it is useful; `curve`, points (coverage, risk).
    """
    counts, risks = counts[counts > 0], risks[counts > 0]
    coverage, risk = np.cumsum(counts) / counts.sum(), np.cumsum(risks) / np.cumsum(counts)
    shown = np.unique(np.linspace(0, len(counts) - 1, MAX_POINTS).astype(int))
    return {
        "risk": float(risk[-1]),
        "aurc": float((risk * counts).sum() / counts.sum()),
        "curve": np.stack([coverage, risk], axis=1)[shown].tolist(),
    }
