"""Means over seeds, and paired differences between variants with confidence intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from genmask_jax.config import SweepConfig

CONFIDENCE = 0.95


class Difference(NamedTuple):
    """The mean difference of a variant from the reference, over the seeds that both have.

    mean: positive if the variant's score is higher.
    margin: half of the width of the 95 % confidence interval; NaN with fewer than two seeds.
    count: number of seeds.
    """

    mean: float
    margin: float
    count: int


def in_order(config: SweepConfig) -> list[str]:
    """The variants of a sweep: the reference, then the others by name."""
    return sorted(config.variants, key=lambda name: (name != config.reference, name))


def scores_by_seed(lines: Sequence[Mapping[str, Any]], variant: str, metric: str) -> dict[int, float]:
    """The scores of a variant by seed, without missing ones."""
    scores = {line["seed"]: line["scores"].get(metric) for line in lines if line["variant"] == variant}
    return {seed: score for seed, score in sorted(scores.items()) if score is not None}


def paired_difference(scores: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    """The difference of two variants' scores by seed, with the interval of a paired t-test.

    Returns:
        None if no seed is in both.
    """
    differences = np.array([scores[seed] - reference[seed] for seed in scores if seed in reference])
    count = len(differences)
    if not count:
        return None
    margin = math.nan
    if count > 1:
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
        margin = float(quantile * differences.std(ddof=1) / math.sqrt(count))
    return Difference(float(differences.mean()), margin, count)
