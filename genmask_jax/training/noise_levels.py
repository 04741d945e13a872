"""The loss by noise level, to see at which levels a task is learned."""

import math
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

NUM_BINS = 8
"""Number of equal bins of noise levels from 0 to 1."""
NUM_AVERAGED = 5
"""Number of logged points that are averaged, since each has few examples in a bin."""


def metric_names(task: str) -> list[str]:
    """Names of the scalars that `by_noise_level` returns for a task."""
    return [f"noise_{task}_{k}_{part}" for k in range(NUM_BINS) for part in ("sum", "share")]


def by_noise_level(task: str, errors: Float[Array, "B"], t: Float[Array, "B"]) -> dict[str, Array]:
    """For each bin: the sum of its examples' errors divided by B, and the share of examples in it.

    Both can be averaged over steps and microbatches. Their ratio is the mean error in the bin.
    """
    bins = jnp.minimum((t * NUM_BINS).astype(jnp.int32), NUM_BINS - 1)
    metrics = {}
    for k in range(NUM_BINS):
        inside = (bins == k).astype(errors.dtype)
        metrics[f"noise_{task}_{k}_sum"] = (errors * inside).mean()
        metrics[f"noise_{task}_{k}_share"] = inside.mean()
    return metrics


def profiles(curves: Mapping[str, Sequence[tuple[int, float]]]) -> dict[str, list[tuple[float, float]]]:
    """(level, loss) pairs of each task from logged points by metric: means of the last points, or NaN."""
    losses: dict[str, dict[float, float]] = {}
    for name, points in sorted(curves.items()):
        metric, _, levels = name.partition("_by_noise/")
        if levels:
            low, high = map(float, levels.split("-"))
            last = [value for _, value in points[-NUM_AVERAGED:]]
            losses.setdefault(metric, {})[(low + high) / 2] = sum(last) / len(last)
    middles = [(k + 0.5) / NUM_BINS for k in range(NUM_BINS)]
    return {metric: [(t, by_level.get(t, math.nan)) for t in middles] for metric, by_level in losses.items()}


def split(scalars: dict[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Splits logged scalars: those that are not from `by_noise_level`, and mean errors by task and level."""
    rest = {name: value for name, value in scalars.items() if not name.startswith("noise_")}
    means = {}
    for name, total in scalars.items():
        if name.startswith("noise_") and name.endswith("_sum"):
            _, task, k, _ = name.split("_")
            share = scalars[f"noise_{task}_{k}_share"]
            if share > 0:
                low, high = int(k) / NUM_BINS, (int(k) + 1) / NUM_BINS
                means[f"loss_{task}_by_noise/{low:.3f}-{high:.3f}"] = total / share
    return rest, means
