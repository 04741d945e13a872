"""A rule that detects "a COLOUR KIND" in an image, for scoring generated ReferShapes images.

It takes the largest blob of the named colour outside the background, and finds the kind of shape that fits it
best. It confirms the prompt's own colour and kind in over 95 % of real images of the test split (see
`tests/evaluation`).
"""

import functools
from typing import cast

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from genmask_jax.data.refershapes.kinds import coverage
from genmask_jax.data.refershapes.styles import Style

MAX_COLOUR_DISTANCE = 75.0
"""Largest distance of a pixel from the named colour, in RGB from 0 to 255."""
MAX_BACKGROUND_DISTANCE = 45.0
"""Largest distance of a pixel of the background from the plane through the image's border."""
MIN_IOU = 0.7
"""Smallest IoU of the blob with the best template."""
MAX_ANGLE_STEP = 0.1
"""Largest angle between templates, in radians."""


def contains_shape(image: UInt8[np.ndarray, "S S 3"], colour: str, kind: str, style: Style) -> bool:
    """Whether the largest blob of a colour in an image is a shape of that kind."""
    return best_kind(largest_blob(image, colour, style), style)[0] == kind


def best_kind(blob: Bool[np.ndarray, "S S"], style: Style) -> tuple[str, float]:
    """Returns the kind of shape of a region ("" if none fits), and the radius of the shape in pixels."""
    scores = {name: _fit(blob, name, style.turns[name]) for name in style.kinds} if blob.any() else {"": 0.0}
    kind = max(scores, key=scores.__getitem__)
    radius = float(np.sqrt(blob.sum() / _unit(kind)[0])) if kind else 0.0
    smallest, largest = style.areas
    fits = smallest <= blob.mean() <= largest and scores[kind] >= MIN_IOU
    return kind if fits else "", radius


def largest_blob(image: UInt8[np.ndarray, "S S 3"], colour: str, style: Style) -> Bool[np.ndarray, "S S"]:
    """Returns the largest connected region of pixels outside the background that have a colour."""
    matching = nearest_colours(image, style) == list(style.colours).index(colour)
    labels, count = cast(tuple[np.ndarray, int], ndimage.label(matching))
    if count == 0:
        return matching
    sizes = np.bincount(labels.ravel())[1:]
    return labels == 1 + sizes.argmax()


def nearest_colours(image: UInt8[np.ndarray, "S S 3"], style: Style) -> Int[np.ndarray, "S S"]:
    """Returns the index of each pixel's colour; -1 for pixels of no colour and of a varied background."""
    channels = image.astype(np.float32)
    palette = np.array(list(style.colours.values()), np.float32)
    distances = np.linalg.norm(channels[:, :, None] - palette, axis=-1)
    nearest = np.where(distances.min(-1) < MAX_COLOUR_DISTANCE, distances.argmin(-1), -1)
    if style.varied:  # muted backgrounds have none of the colours
        nearest[np.linalg.norm(channels - background(channels), axis=-1) <= MAX_BACKGROUND_DISTANCE] = -1
    return nearest


def background(image: Float[np.ndarray, "S S 3"]) -> Float[np.ndarray, "S S 3"]:
    """Fits a plane to the border's colours twice; the second fit excludes pixels far from the first plane."""
    size = len(image)
    y, x = np.mgrid[:size, :size]
    terms = np.stack([np.ones_like(x), x, y], axis=-1) / np.array([1, size, size], np.float32)
    border = (x < 2) | (y < 2) | (x >= size - 2) | (y >= size - 2)
    distance = np.linalg.norm(image[border] - np.median(image[border], axis=0), axis=-1)
    inliers = distance <= np.quantile(distance, 0.8)
    for _ in range(2):
        plane, *_ = np.linalg.lstsq(terms[border][inliers], image[border][inliers], rcond=None)
        distance = np.linalg.norm(image[border] - terms[border] @ plane, axis=-1)
        inliers = distance <= max(MAX_BACKGROUND_DISTANCE, np.quantile(distance, 0.5))
    return (terms @ plane).astype(np.float32)


@functools.cache
def _unit(kind: str) -> tuple[float, np.ndarray]:
    """Area of a shape of radius 1, and offset (x, y) of its centroid at angle 0."""
    (rows, columns), share = coverage(kind, (150.0, 150.0), 100.0, 0.0, 300)
    y, x = np.mgrid[rows, columns] + 0.5
    centroid = np.array([(x * share).sum(), (y * share).sum()]) / share.sum()
    return float(share.sum()) / 100.0**2, (centroid - 150.0) / 100.0


def _fit(blob: np.ndarray, kind: str, max_angle: float) -> float:
    """Best IoU over angles of the blob with the kind's template, at the blob's area and centroid."""
    area, offset = _unit(kind)
    radius = np.sqrt(blob.sum() / area)
    y, x = np.nonzero(blob)
    centroid = np.array([x.mean(), y.mean()]) + 0.5
    best = 0.0
    for angle in np.linspace(-max_angle, max_angle, 1 + 2 * int(np.ceil(max_angle / MAX_ANGLE_STEP))):
        cos, sin = np.cos(angle), np.sin(angle)
        rotated_offset = radius * np.array(
            [cos * offset[0] - sin * offset[1], sin * offset[0] + cos * offset[1]]
        )
        box, share = coverage(kind, tuple(centroid - rotated_offset), radius, angle, blob.shape[0])
        template = np.zeros_like(blob)
        template[box] = share > 0.5
        best = max(best, (template & blob).sum() / max(1, (template | blob).sum()))
    return best
