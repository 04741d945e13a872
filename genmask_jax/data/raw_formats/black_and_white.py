"""Masks of two values, black and one other. Lossy formats and blurred edges add values between the two.

A mask is not black and white if an even square of FLAT pixels lies between the two values, if more than
BETWEEN of its pixels lie between them, or if it has colours that are not shades of the brighter value.
"""

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from etils import epath
from jaxtyping import Int
from PIL import Image

from genmask_jax.data.raw_formats.class_list import SAID, shown_colour
from genmask_jax.data.raw_formats.label_files import NEAR, read_colours, read_numbers
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import UNREADABLE

EDGE = 0.1
"""Levels within this share of the brightest level of black, or of white, are black, or white."""
BETWEEN = 0.25
FLAT = 3
EVEN = 8
"""Largest difference of levels of a channel in an even square of a blurred or lossy mask."""
BLURRED = 16
"""A mask with blurred edges has more values than this."""
NOISE = 0.01
"""Largest share of pixels in even squares of other values in a mask that was once a JPEG."""
BLACK = 0
REMEDY = (
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
        return Image.open(io.BytesIO(path.read_bytes())).mode.startswith(("I", "F"))
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
    found, counts = np.unique(pixels, return_counts=True)
    if len(found) <= 2:
        return tuple(found.tolist())
    levels = level(pixels)
    top = int(levels.max())
    if top <= 3 * NEAR:  # class numbers, or black after JPEG
        return (BLACK,) if lossy else None
    bright, dark = levels >= (1 - EDGE) * top, levels <= EDGE * top
    between = ~bright & ~dark
    white = int(found[np.argmax(np.where(level(found) >= (1 - EDGE) * top, counts, 0))])
    if between.mean() > BETWEEN or _has_third_value(pixels, between, white, lossy):
        return None
    if np.mean(_off_the_line(pixels, levels, white) > NEAR) > EDGE / 10:
        return None
    return (BLACK, white) if dark.any() else (white,)


def _has_third_value(pixels: np.ndarray, between: np.ndarray, white: int, lossy: bool) -> bool:
    """Whether an even square of FLAT pixels has neither value, so that it is not an edge."""
    levels = level(pixels).astype(np.uint16)
    square = np.ones((FLAT, FLAT), np.uint8)
    spread = cv2.dilate(levels, square).astype(int) - cv2.erode(levels, square)
    few = not lossy and len(np.unique(pixels)) <= BLURRED
    inside = cv2.erode(between.astype(np.uint8), square) > 0
    if (inside & (spread <= (0 if few else 3 * EVEN))).any():
        return True
    others = (spread == 0) & (pixels != pixels.min()) & (pixels != white)  # 0, 1 and 255
    return not lossy and bool(others.any() if few else others.mean() > NOISE)


def _off_the_line(pixels: np.ndarray, levels: np.ndarray, white: int) -> np.ndarray:
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
    found: dict[epath.Path, tuple[int, ...]] = {}
    for path in paths:
        try:
            its = values_of(path)
        except ValueError:
            continue
        if its is None:
            raise UserError(f"{path} is not black and white; {REMEDY}")
        found[path] = its
    values = _joined(list(found.values()))
    if len(values) > 2:
        some = ", ".join(shown_colour(value) for value in values[:SAID])
        raise UserError(f"{where}: the {len(paths):,} masks have {len(values)} values ({some}); {REMEDY}")
    if len(values) == 1:
        need_both(len(found), not values[0], bool(values[0]), where)
    return sum(map(level, values)) / 2


def need_both(count: int, empty: bool, full: bool, where: str) -> None:
    """Raises UserError if all of `count` masks are empty, or all are full."""
    if count and (empty or full):
        what = "empty" if empty else "full"
        raise UserError(f"{where}: all {count:,} masks are {what}; there is nothing to learn")


def _joined(found: list[tuple[int, ...]]) -> list[int]:
    """The values of all masks, by brightness; bright values that differ only by JPEG noise are merged."""
    values = sorted({value for some in found for value in some}, key=lambda value: (level(value), value))
    bright = (1 - EDGE) * max(map(level, values), default=0)
    kept: list[int] = []
    for value in values:
        same = (other for other in kept if level(other) >= bright and _distance(value, other) <= NEAR)
        if level(value) < bright or next(same, None) is None:
            kept.append(value)
    return kept


def _distance(one: int, other: int) -> float:
    return float(np.sqrt(sum(((one >> s & 255) - (other >> s & 255)) ** 2 for s in (16, 8, 0))))
