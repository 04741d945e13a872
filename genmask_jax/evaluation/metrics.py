"""Exact metrics of referring segmentation: pixels are counted as integers and divided once.

There are three protocols, as used for the published tables: RefCOCO, RefCOCO+ and RefCOCOg as evaluated by
LAVT (Yang et al., 2022), ReasonSeg as by LISA (Lai et al., 2024), gRefCOCO as by ReLA (Liu et al., 2023).
They need only four numbers per expression (`Counts`).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from genmask_jax.data.masks import IGNORE

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
TARGETED_THRESHOLDS = (0.7, 0.8, 0.9)
"""Thresholds of gRefCOCO."""
BOUNDARY_WIDTH = 0.02
"""Width of a mask's boundary region as a share of the image's diagonal."""


class Counts(NamedTuple):
    """Pixel counts of one expression: in both masks, in either, in the prediction; without ignored pixels.

    no_target: whether the expression refers to nothing; False for an object too small to cover any pixel.
    """

    intersection: int
    union: int
    prediction: int
    no_target: bool = False


def count_pixels(
    prediction: Bool[np.ndarray, "h w"], truth: UInt8[np.ndarray, "H W"], no_target: bool = False
) -> Counts:
    """Counts the pixels of one expression.

    Args:
        prediction: bool `[H, W]`, at the truth's own resolution.
        truth: uint8 `[H, W]`, 1 for the object, 0 for the rest, 255 for ignored pixels.
        no_target: see `Counts`.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, but truth has shape {truth.shape}")
    target = truth == 1
    predicted = prediction & (truth != IGNORE)
    intersection, union = np.count_nonzero(predicted & target), np.count_nonzero(predicted | target)
    return Counts(int(intersection), int(union), int(np.count_nonzero(predicted)), no_target)


def intersection_union(
    prediction: Bool[np.ndarray, "h w"], truth: UInt8[np.ndarray, "H W"]
) -> tuple[int, int]:
    """Returns the pixels in both masks and in either mask, as counted by `count_pixels`."""
    counts = count_pixels(prediction, truth)
    return counts.intersection, counts.union


def boundary_intersection_union(
    prediction: Bool[np.ndarray, "h w"], truth: UInt8[np.ndarray, "H W"]
) -> tuple[int, int]:
    """Like `intersection_union`, of the boundary regions alone, for boundary IoU (Cheng et al. 2021)."""
    truth_boundary = np.where(truth == IGNORE, IGNORE, boundary(truth == 1)).astype(np.uint8)
    return intersection_union(boundary(prediction), truth_boundary)


def boundary(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The pixels of a mask within BOUNDARY_WIDTH of its contour, to which the image's border belongs."""
    width = max(1, round(BOUNDARY_WIDTH * math.hypot(*mask.shape)))
    padded = np.pad(mask, 1).astype(np.uint8)
    interior = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
    return mask & (interior == 0)


def summarize(
    intersections: Sequence[int] | np.ndarray, unions: Sequence[int] | np.ndarray
) -> dict[str, int | float]:
    """Metrics of a set of expressions, all but the count in [0, 1].

    Args:
        intersections: `[N]` pixels in both masks, one count per expression.
        unions: `[N]` pixels in either mask.

    Returns:
        `count` = N; `mIoU`, the mean IoU over expressions, where an empty union gives 0; `oIoU` (also called
        cIoU), the sum of intersections over the sum of unions; `P@X`, the share with IoU >= X.

    Raises:
        ValueError: there are no expressions, or the lengths differ.
    """
    overlap, union = np.asarray(intersections, np.int64), np.asarray(unions, np.int64)
    if overlap.shape != union.shape or not union.size:
        raise ValueError(
            f"need equally many intersections and unions, at least one: {overlap.size}, {union.size}"
        )
    # An empty union has an empty intersection, and 0 / 1 gives the conventional IoU of 0.
    ious = overlap / np.maximum(union, 1)
    return {
        "count": int(union.size),
        "mIoU": float(ious.mean()),
        "oIoU": float(overlap.sum() / max(union.sum(), 1)),
        **{f"P@{threshold}": float(np.mean(ious >= threshold)) for threshold in THRESHOLDS},
    }


def summarize_refcoco(counts: Sequence[Counts]) -> dict[str, int | float]:
    """`summarize`, with oIoU also under the name `cIoU`, because papers use both names."""
    summary = summarize([c.intersection for c in counts], [c.union for c in counts])
    return summary | {"cIoU": summary["oIoU"]}


def summarize_reasonseg(counts: Sequence[Counts]) -> dict[str, int | float]:
    """`count`; `gIoU`, the mean of I / (U + 1e-5), where an empty union gives 1; `cIoU`, sum of I / sum of U.

    Raises:
        ValueError: no expressions.
    """
    overlap, union, _, _ = _columns(counts)
    ious = np.where(union == 0, 1.0, overlap / (union + 1e-5))
    return {
        "count": len(counts),
        "gIoU": float(ious.mean()),
        "cIoU": float(overlap.sum() / max(union.sum(), 1)),
    }


def summarize_grefcoco(counts: Sequence[Counts]) -> dict[str, int | float | None]:
    """Metrics of expressions that may have no target; an empty prediction means "no target".

    Returns:
        `count`; `gIoU`, the mean IoU, where an expression without a target gives 1 if the prediction is empty
        and 0 if not; `cIoU`, sum of I / sum of U, where a prediction for no target adds its area to U;
        `N-acc`, the share of expressions without a target with an empty prediction; `T-acc`, the share of the
        others with a nonempty one; `Pr@X`, the share of the others with IoU >= X. A share of an empty set is
        None.

    Raises:
        ValueError: no expressions.
    """
    overlap, union, prediction, no_target = _columns(counts)
    no_target, empty = no_target == 1, prediction == 0
    ious = np.where(no_target, empty.astype(float), overlap / np.maximum(union, 1))
    summary = {
        "count": len(counts),
        "gIoU": float(ious.mean()),
        "cIoU": float(overlap.sum() / max(union.sum(), 1)),
        "N-acc": _share(empty[no_target]),
        "T-acc": _share(~empty[~no_target]),
    }
    return summary | {f"Pr@{x}": _share(ious[~no_target] >= x) for x in TARGETED_THRESHOLDS}


def _columns(counts: Sequence[Counts]) -> np.ndarray:
    if not counts:
        raise ValueError("need at least one expression")
    return np.asarray(counts, np.int64).T


def _share(hits: np.ndarray) -> float | None:
    return float(hits.mean()) if hits.size else None


PROTOCOLS: dict[str, Callable[[Sequence[Counts]], dict[str, Any]]] = {
    "refcoco": summarize_refcoco,
    "reasonseg": summarize_reasonseg,
    "grefcoco": summarize_grefcoco,
}
"""Functions that compute a benchmark's metrics from its counts, by protocol."""
