"""Masks of two values, black and one other. Lossy formats and blurred edges add values between the two.

A mask is not black and white if an even square of FLAT_SIDE pixels lies between the two values, if more than
MAX_BETWEEN of its pixels lie between them, or if it has colours that are not shades of the brighter value.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from etils import epath
from jaxtyping import Int

from genmask_jax.data.raw_formats.class_list import MAX_LISTED, shown_colour
from genmask_jax.data.raw_formats.label_files import MAX_DISTANCE, read_colours, read_numbers
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import UNREADABLE, load_image

LEVEL_TOLERANCE = 0.1
"""Levels this close to black or to the brightest level count as black or white; a share of the latter."""
MAX_BETWEEN = 0.25
FLAT_SIDE = 3
MAX_DIFFERENCE = 8
"""Largest difference of a channel's levels in an even square of a blurred or lossy mask."""
MAX_SHARP_VALUES = 16
"""Masks with more values than this have blurred edges."""
MAX_NOISE = 0.01
"""Largest share of pixels in even squares of other values, in masks that were converted from JPEG."""
BLACK = 0
CLASS_LIST_HINT = (
    "for masks of several classes, write classes.txt (a name for each number) or label_colors.txt (a line "
    "such as `128 64 128 road` for each colour) instead of phrases.txt"
)


def read_pixels(path: epath.Path) -> tuple[Int[np.ndarray, "H W"], bool]:
    """The values of a mask, and whether its format changes colours.

    Values are colours (0xRRGGBB), or numbers in files with more than 8 bits.

    Raises:
        ValueError: the file cannot be read, or has negative numbers.
    """
    if not _has_numbers(path):
        return read_colours(path)
    numbers = read_numbers(path)
    if numbers.min() < 0:
        raise ValueError(f"{path} has negative numbers; a mask must have 0 and 1")
    return numbers, False


def _has_numbers(path: epath.Path) -> bool:
    if path.name.lower().endswith(".npy"):
        return True
    try:
        return load_image(path.read_bytes()).mode.startswith(("I", "F"))
    except UNREADABLE:
        return False


def level(values: Any) -> Any:
    """Brightness of values (an integer or an array): the sum of the channels."""
    return (values >> 16) + (values >> 8 & 255) + (values & 255)


def values_of(path: epath.Path) -> tuple[int, ...] | None:
    """The one or two values of a mask, without those of edges; None if it has more.

    Raises:
        ValueError: the file cannot be read.
    """
    pixels, lossy = read_pixels(path)
    unique, counts = np.unique(pixels, return_counts=True)
    if len(unique) <= 2:
        return tuple(unique.tolist())
    levels = level(pixels)
    brightest = int(levels.max())
    if brightest <= 3 * MAX_DISTANCE:  # class numbers, or black after JPEG
        return (BLACK,) if lossy else None
    bright, dark = levels >= (1 - LEVEL_TOLERANCE) * brightest, levels <= LEVEL_TOLERANCE * brightest
    between = ~bright & ~dark
    white = int(unique[np.argmax(np.where(level(unique) >= (1 - LEVEL_TOLERANCE) * brightest, counts, 0))])
    if between.mean() > MAX_BETWEEN or _has_third_value(pixels, between, white, lossy):
        return None
    if np.mean(_distance_from_shade(pixels, levels, white) > MAX_DISTANCE) > LEVEL_TOLERANCE / 10:
        return None
    return (BLACK, white) if dark.any() else (white,)


def _has_third_value(pixels: np.ndarray, between: np.ndarray, white: int, lossy: bool) -> bool:
    """Whether an even square of FLAT_SIDE pixels has neither value, so that it is not an edge."""
    levels = level(pixels).astype(np.uint16)
    square = np.ones((FLAT_SIDE, FLAT_SIDE), np.uint8)
    spread = cv2.dilate(levels, square).astype(int) - cv2.erode(levels, square)
    sharp = not lossy and len(np.unique(pixels)) <= MAX_SHARP_VALUES
    interior = cv2.erode(between.astype(np.uint8), square) > 0
    if (interior & (spread <= (0 if sharp else 3 * MAX_DIFFERENCE))).any():
        return True
    others = (spread == 0) & (pixels != pixels.min()) & (pixels != white)  # 0, 1 and 255
    return not lossy and bool(others.any() if sharp else others.mean() > MAX_NOISE)


def _distance_from_shade(pixels: np.ndarray, levels: np.ndarray, white: int) -> np.ndarray:
    """Distance of each pixel's channels from a shade of `white` with the same level."""
    share = levels / max(1, level(white))
    channels = [np.abs((pixels >> s & 255) - share * (white >> s & 255)) for s in (16, 8, 0)]
    return np.max(channels, axis=0)


def threshold_of(paths: Sequence[epath.Path], where: str) -> float:
    """The level between the two values of a dataset's masks.

    Args:
        paths: paths of the masks; unreadable ones are skipped.
        where: the dataset, for messages.

    Raises:
        UserError: the masks have more than two values, or only one.
    """
    values_by_path: dict[epath.Path, tuple[int, ...]] = {}
    for path in paths:
        try:
            mask_values = values_of(path)
        except ValueError:
            continue
        if mask_values is None:
            raise UserError(f"{path} is not black and white; {CLASS_LIST_HINT}")
        values_by_path[path] = mask_values
    values = _merge_values(list(values_by_path.values()))
    if len(values) > 2:
        shown = ", ".join(shown_colour(value) for value in values[:MAX_LISTED])
        raise UserError(
            f"{where}: the {len(paths):,} masks have {len(values)} values ({shown}); {CLASS_LIST_HINT}"
        )
    if len(values) == 1:
        need_both(len(values_by_path), not values[0], bool(values[0]), where)
    return sum(map(level, values)) / 2


def need_both(count: int, empty: bool, full: bool, where: str) -> None:
    """Raises UserError if all of `count` masks are empty, or all are full."""
    if count and (empty or full):
        what = "empty" if empty else "full"
        raise UserError(f"{where}: all {count:,} masks are {what}; there is nothing to learn")


def _merge_values(masks: list[tuple[int, ...]]) -> list[int]:
    """The values of all masks, by brightness; bright values that differ only by JPEG noise are merged."""
    values = sorted(
        {value for mask_values in masks for value in mask_values}, key=lambda value: (level(value), value)
    )
    bright = (1 - LEVEL_TOLERANCE) * max(map(level, values), default=0)
    merged: list[int] = []
    for value in values:
        equal = (
            other for other in merged if level(other) >= bright and _distance(value, other) <= MAX_DISTANCE
        )
        if level(value) < bright or next(equal, None) is None:
            merged.append(value)
    return merged


def _distance(one: int, other: int) -> float:
    return float(np.sqrt(sum(((one >> s & 255) - (other >> s & 255)) ** 2 for s in (16, 8, 0))))
