"""Masks of ReasonSeg's labelled shapes, as for its published scores.

OpenCV draws outline and interior, with points truncated to integers. Larger shapes are drawn first.
(Reference: `get_mask_from_json` of LISA.)
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from genmask_jax.data.masks import IGNORE, MAX_COORDINATE, Size


def usable(shapes: list[Any], size: Size | None) -> tuple[tuple[tuple[str, Any], ...], list[str]]:
    """(label, points) of the valid shapes, and an error message for each invalid one.

    Shapes labelled "flag", in upper or lower case, are not annotations and are skipped.

    Args:
        shapes: the shapes of an annotation.
        size: (height, width) of the image; None to accept shapes outside the image.
    """
    valid, complaints = [], []
    for i, shape in enumerate(shapes):
        label, points = (shape.get(key) if isinstance(shape, dict) else None for key in ("label", "points"))
        if not isinstance(label, str):
            complaints.append(f"shape {i} has no label")
        elif label.lower() != "flag":
            try:
                valid.append((label, _corners(points, size)))
            except ValueError as error:
                complaints.append(f"shape {i} ({label}) {error}")
    return tuple(valid), complaints


def _corners(points: Any, size: Size | None) -> tuple[tuple[float, float], ...]:
    """Valid points (x, y). Raises ValueError if they are invalid."""
    if not isinstance(points, list) or len(points) < 3:
        raise ValueError(f"has {len(points) if isinstance(points, list) else 'no'} points")
    try:
        array: Any = np.asarray(points, float)
    except (TypeError, ValueError, OverflowError):
        array = np.empty(0)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError("has points that are not pairs of numbers")
    if not (np.abs(array) <= MAX_COORDINATE).all():  # False if not finite
        raise ValueError("has points far outside any image")
    if size and not _draw(np.zeros(size, np.uint8), array, 1).any():
        raise ValueError("lies outside the image")
    return tuple((float(x), float(y)) for x, y in points)


def paint(shapes: Sequence[tuple[str, Any]], size: Size) -> UInt8[np.ndarray, "H W"]:
    """A mask: 1 where a shape's label names a target, 255 where it contains "ignore", 0 elsewhere.

    Args:
        shapes: (label, points (x, y)) from `usable`.
        size: (height, width) of the image.
    """
    areas = [int(np.count_nonzero(_draw(np.zeros(size, np.uint8), points, 1))) for _, points in shapes]
    mask = np.zeros(size, np.uint8)
    for i in np.argsort(areas, kind="stable")[::-1]:
        label, points = shapes[i]
        _draw(mask, points, IGNORE if "ignore" in label.lower() else 1)
    return mask


def _draw(mask: np.ndarray, points: Any, value: int) -> np.ndarray:
    corners = np.array(points, np.float64).astype(np.int32)
    cv2.polylines(mask, [corners], True, [value], 1)
    cv2.fillPoly(mask, [corners], [value])
    return mask
