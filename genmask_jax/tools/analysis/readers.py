"""What can be read from noisy latents: linear classifiers of cells, and a matched filter of scenes."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

MAX_ITERATIONS = 2000
"""Iterations of the SVM's solver; it converges in tens."""
NUM_DRAWS = 8
"""Noises per scene of the matched filter."""


def least_squares(
    train: Float[np.ndarray, "N C"], labels: Bool[np.ndarray, "N"], test: Float[np.ndarray, "B C"]
) -> Bool[np.ndarray, "B"]:
    """Classifies cells by linear regression of -1 and +1; both classes have the same total weight."""
    weights = np.where(labels, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))[:, None]
    inputs = np.pad(train.astype(np.float64), ((0, 0), (0, 1)), constant_values=1)
    targets = np.where(labels, 1.0, -1.0)
    products = inputs.T @ (weights * inputs), inputs.T @ (weights[:, 0] * targets)
    solution = np.linalg.lstsq(*products, rcond=None)[0]
    return test @ solution[:-1] + solution[-1] > 0


def linear_svm(
    train: Float[np.ndarray, "N C"], labels: Bool[np.ndarray, "N"], test: Float[np.ndarray, "B C"]
) -> Bool[np.ndarray, "B"]:
    """Classifies cells by a linear SVM (squared hinge loss); both classes have the same total weight."""
    from sklearn.svm import LinearSVC

    mean, std = train.mean(0), train.std(0) + 1e-12
    options: Any = {"dual": False, "class_weight": "balanced", "max_iter": MAX_ITERATIONS}
    model: Any = LinearSVC(**options)
    return model.fit((train - mean) / std, labels).predict((test - mean) / std)


CLASSIFIERS = {"least_squares": least_squares, "linear_svm": linear_svm}


def cell_scores(predicted: Bool[np.ndarray, "B"], labels: Bool[np.ndarray, "B"]) -> dict[str, float]:
    """`balanced_accuracy` (the mean of the two classes' accuracies) and `IoU` of the object's cells."""
    accuracies = [(predicted == labels)[labels == value].mean() for value in (False, True)]
    union = np.count_nonzero(predicted | labels)
    return {
        "balanced_accuracy": float(np.mean(accuracies)),
        "IoU": float(np.count_nonzero(predicted & labels) / max(union, 1)),
    }


def matched_filter(
    latents: Float[np.ndarray, "N D"], t: float, num_candidates: int, rng: np.random.Generator
) -> float:
    """How often an ideal reader recognises a noisy latent among clean candidates.

    The candidates are the true latent and those of `num_candidates - 1` other scenes. For Gaussian noise of
    known level, the most probable candidate is the nearest one after scaling by 1 - t. No other reader is
    right more often.

    Args:
        latents: clean latents, one row per scene.
        t: noise level, in [0, 1].
        num_candidates: number of candidates, from 2 to N.
        rng: draws the candidates and the noises.

    Returns:
        The accuracy, in [0, 1]. Equally near candidates count as a random guess among them.
    """
    count, hits = len(latents), []
    norms = (latents**2).sum(1)
    for i in np.tile(np.arange(count), NUM_DRAWS):
        others = rng.choice(count - 1, num_candidates - 1, replace=False)
        candidates = np.concatenate([[i], others + (others >= i)])
        noisy = (1 - t) * latents[i] + t * rng.standard_normal(latents.shape[1], np.float32)
        # Minus half of the squared distances, up to a constant.
        scores = (1 - t) * (latents[candidates] @ noisy - (1 - t) / 2 * norms[candidates])
        best = scores == scores.max()
        hits.append(best[0] / best.sum())
    return float(np.mean(hits))
