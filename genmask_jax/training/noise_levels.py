"""The loss by noise level: where a task is learned, and where it is not."""

import math
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

BINS = 8
"""Equal bins of noise levels from 0 to 1."""
LAST = 5
"""Logged points that are averaged, since a bin has few examples in each."""


def metric_names(task: str) -> list[str]:
    """Names of the scalars that `by_noise_level` returns for a task."""
    return [f"noise_{task}_{k}_{part}" for k in range(BINS) for part in ("sum", "share")]


def by_noise_level(task: str, errors: Float[Array, "B"], t: Float[Array, "B"]) -> dict[str, Array]:
    """Of each bin, the sum of its examples' errors divided by B, and their share.

    Both can be averaged over steps and microbatches, and their ratio is the mean error of the bin's examples.
    """
    bins = jnp.minimum((t * BINS).astype(jnp.int32), BINS - 1)
    found = {}
    for k in range(BINS):
        inside = (bins == k).astype(errors.dtype)
        found[f"noise_{task}_{k}_sum"] = (errors * inside).mean()
        found[f"noise_{task}_{k}_share"] = inside.mean()
    return found


def profiles(curves: Mapping[str, Sequence[tuple[int, float]]]) -> dict[str, list[tuple[float, float]]]:
    """From logged points by metric, (level, loss) of each task: means of a bin's last points, or NaN."""
    found: dict[str, dict[float, float]] = {}
    for name, points in sorted(curves.items()):
        metric, _, levels = name.partition("_by_noise/")
        if levels:
            low, high = map(float, levels.split("-"))
            last = [value for _, value in points[-LAST:]]
            found.setdefault(metric, {})[(low + high) / 2] = sum(last) / len(last)
    middles = [(k + 0.5) / BINS for k in range(BINS)]
    return {metric: [(t, of.get(t, math.nan)) for t in middles] for metric, of in found.items()}


def split(scalars: dict[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Logged scalars without those of `by_noise_level`; and the mean errors, by task and range of levels."""
    rest = {name: value for name, value in scalars.items() if not name.startswith("noise_")}
    means = {}
    for name, total in scalars.items():
        if name.startswith("noise_") and name.endswith("_sum"):
            _, task, k, _ = name.split("_")
            share = scalars[f"noise_{task}_{k}_share"]
            if share > 0:
                low, high = int(k) / BINS, (int(k) + 1) / BINS
                means[f"loss_{task}_by_noise/{low:.3f}-{high:.3f}"] = total / share
    return rest, means
