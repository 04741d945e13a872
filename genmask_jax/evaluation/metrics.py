"""The metrics of referring segmentation, exactly: pixels are counted in integers and divided once.

Definitions as in LAVT's evaluation (Yang et al., 2022), which published tables on RefCOCO follow.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

IGNORE = 255
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def intersection_union(
    prediction: Bool[np.ndarray, "H W"], truth: UInt8[np.ndarray, "H W"]
) -> tuple[int, int]:
    """Pixels in both masks and pixels in either.

    Args:
        prediction: bool `[H, W]`, at the truth's own resolution.
        truth: uint8 `[H, W]`, 1 for the object, 0 for the rest, 255 for pixels that count in neither number.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, but truth has shape {truth.shape}")
    target = truth == 1
    predicted = prediction & (truth != IGNORE)
    return int(np.count_nonzero(predicted & target)), int(np.count_nonzero(predicted | target))


def summarize(intersections: Sequence[int], unions: Sequence[int]) -> dict[str, int | float]:
    """Metrics of a set of expressions, all but the count in [0, 1].

    Args:
        intersections: `[N]` pixels in both masks, one an expression.
        unions: `[N]` pixels in either mask.

    Returns:
        `count` = N; `mIoU`, the mean of the expressions' IoUs, where an empty union gives 0; `oIoU` (cIoU by
        another name), the sum of intersections over that of unions; `P@X`, the share with IoU >= X.

    Raises:
        ValueError: no expressions, or lists of different length.
    """
    overlap, union = np.asarray(intersections, np.int64), np.asarray(unions, np.int64)
    if overlap.shape != union.shape or not union.size:
        raise ValueError(f"need as many intersections as unions, one at least: {overlap.size}, {union.size}")
    # Where the union is empty so is the intersection: 0 / 1 gives the 0 of the convention.
    ious = overlap / np.maximum(union, 1)
    return {
        "count": int(union.size),
        "mIoU": float(ious.mean()),
        "oIoU": float(overlap.sum() / max(union.sum(), 1)),
        **{f"P@{threshold}": float(np.mean(ious >= threshold)) for threshold in THRESHOLDS},
    }
