"""Statistics of latents: principal components, spread, kurtosis, histograms."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

NUM_BINS = 100


def principal_components(
    latents: Float[np.ndarray, "N h w C"],
) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, "C C"]]:
    """Principal components of the latents of all cells.

    Returns:
        The share of the variance that each component explains, in decreasing order, and the components, one
        per row, of length 1.
    """
    variances, columns = np.linalg.eigh(np.cov(_cells(latents), rowvar=False))
    variances = np.maximum(variances[::-1], 0)
    return variances / variances.sum(), columns.T[::-1]


def project(
    latents: Float[np.ndarray, "N h w C"],
    component: Float[np.ndarray, " C"],
    share: Float[np.ndarray, "N h w"],
) -> tuple[Float[np.ndarray, "N h w"], float]:
    """Projects latents on a component, and returns the correlation with the share of the object.

    The sign of a component is arbitrary; it is chosen so that the correlation is not negative.

    Args:
        latents: latents.
        component: direction of length 1.
        share: share of each cell that the object covers, in [0, 1].
    """
    projection = (latents - latents.mean((0, 1, 2))) @ component
    correlation = float(np.corrcoef(projection.ravel(), share.ravel())[0, 1])
    return (projection, correlation) if correlation >= 0 else (-projection, -correlation)


def excess_kurtosis(values: Float[np.ndarray, "N C"]) -> Float[np.ndarray, " C"]:
    """The kurtosis of each column minus that of a normal distribution (3), float64."""
    centred = values.astype(np.float64) - values.mean(0)
    return (centred**4).mean(0) / (centred**2).mean(0) ** 2 - 3


def cell_groups(share: Float[np.ndarray, "N h w"]) -> dict[str, Bool[np.ndarray, "N h w"]]:
    """Masks of the cells in the object, on its edge, and in the background."""
    return {"object": share == 1, "edge": (share > 0) & (share < 1), "background": share == 0}


def spread(latents: Float[np.ndarray, "N h w C"], share: Float[np.ndarray, "N h w"]) -> dict[str, Any]:
    """Kurtosis and standard deviation of latents.

    Returns:
        `kurtosis`: the excess kurtosis of each channel; `kurtosis_pooled`: that of all values together;
        `std`: for all cells and each of `cell_groups`, the root mean square over channels of the standard
        deviation around the group's own mean, or None for a group of fewer than two cells; `std_channels`:
        the same for each channel.
    """
    groups = {"all": np.ones_like(share, bool), **cell_groups(share)}
    stds = {name: latents[cells].std(0) if cells.sum() > 1 else None for name, cells in groups.items()}
    return {
        "kurtosis": excess_kurtosis(_cells(latents)).tolist(),
        "kurtosis_pooled": float(excess_kurtosis(latents.reshape(-1, 1))[0]),
        "std": {name: None if s is None else float(np.sqrt((s**2).mean())) for name, s in stds.items()},
        "std_channels": {name: None if s is None else s.tolist() for name, s in stds.items()},
    }


def mean_distance(latents: Float[np.ndarray, "N h w C"]) -> float:
    """The root mean square distance between the latents of two scenes (all cells and channels)."""
    return float(np.sqrt(2 * latents.var(0, ddof=1).sum()))


def histograms(
    latents: Mapping[str, Float[np.ndarray, "N h w C"]], share: Float[np.ndarray, "N h w"]
) -> dict[str, Any]:
    """Histograms of the latents of each kind, all with the same bins, which hold all values.

    Returns:
        `edges`: the edges of the bins; for each kind, densities: `all` and each of `cell_groups` (all
        channels together), and `channels`, a list with one histogram per channel.
    """
    limit = max(float(np.abs(values).max()) for values in latents.values())
    edges = np.linspace(-limit, limit, NUM_BINS + 1)
    groups = {"all": np.ones_like(share, bool), **cell_groups(share)}

    def density(values: np.ndarray) -> list[float]:
        counts = np.histogram(values, edges)[0]
        return (counts / max(counts.sum(), 1) / np.diff(edges)).tolist()

    return {"edges": edges.tolist()} | {
        kind: {name: density(values[cells]) for name, cells in groups.items()}
        | {"channels": [density(values[..., i]) for i in range(values.shape[-1])]}
        for kind, values in latents.items()
    }


def _cells(latents: np.ndarray) -> np.ndarray:
    return latents.reshape(-1, latents.shape[-1])
