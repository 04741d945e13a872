"""Masks as run-length encodings (RLE) at the image's own resolution, and their conversion from COCO.

The encoding is pycocotools'. An RLE here is only its `counts` as ASCII text; the size is kept separately.
Counts are checked when a dataset is prepared (`from_rle`, `from_coco`) or predictions are read, not whenever
a mask is read. `to_model_mask` resizes all training masks to the model's size.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from pycocotools import mask as coco

from genmask_jax.utils.errors import short_repr

Size = tuple[int, int]
"""Height and width, pixels."""
IGNORE = 255
"""Mask value of ignored pixels."""
RESIZE_RULE = "half of the most that it covers"
"""Name of the rule of `to_model_mask`, which a cache of latents records."""
TOLERANCE = 1e-6
"""Rounding error of coverages in float32."""
MAX_COORDINATE = 2**15
"""Largest coordinate that the drawing libraries accept."""
MAX_PIXELS = 2 * 10**8
"""Largest number of pixels of an image with masks. Larger images are not decoded anyway (`utils.images`)."""


def encode(mask: np.ndarray) -> str:
    """Encodes a mask [H, W], nonzero at the object, as counts."""
    return _counts(coco.encode(np.asfortranarray(mask, np.uint8)))


def _counts(rle: Any) -> str:
    """The counts of a pycocotools RLE as text."""
    return rle["counts"].decode()


def decode(counts: str, size: Size) -> Bool[np.ndarray, "H W"]:
    """The inverse of `encode`.

    The counts must be valid and of this size (`need_valid`); for others, pycocotools returns uninitialised
    memory.
    """
    return coco.decode(_rle(counts, size)).astype(bool)


def area(counts: str, size: Size) -> int:
    """Number of pixels of a mask."""
    return int(coco.area(_rle(counts, size)))


def _rle(counts: str, size: Size) -> Any:
    """An RLE of pycocotools."""
    return {"size": list(size), "counts": counts.encode()}


def need_valid(counts: str, size: Size) -> None:
    """Raises ValueError if the counts are not a valid RLE of this size."""
    if sum(run_lengths(counts)) != size[0] * size[1]:
        raise ValueError(f"its runs do not add up to {_times(size)} pixels")


def run_lengths(counts: str) -> list[int]:
    """Decodes COCO's compressed counts, which store each run length minus the one before the last.

    pycocotools has no function that returns or checks the lengths.

    Raises:
        ValueError: an invalid character, an unfinished number, or a negative length.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{character!r} is not valid in compressed counts")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
        if lengths[-1] < 0:
            raise ValueError("a run of negative length")
    if shift:
        raise ValueError("it ends within a number")
    return lengths


def usable(segmentation: Any, size: Size) -> tuple[Any, list[str]]:
    """Checks an annotation's `segmentation`.

    Args:
        segmentation: polygons [[x, y, x, y, ...], ...], whose union is the mask; or an RLE {"size",
            "counts"}, compressed or as a list.
        size: (height, width) of the image.

    Returns:
        The segmentation for `from_coco`, and an error message for each part that is left out.

    Raises:
        ValueError: all parts are invalid.
    """
    if isinstance(segmentation, dict):
        counts = from_rle(segmentation, size)
        if not area(counts, size):
            raise ValueError("its mask is empty")
        return counts, []
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("no segmentation")
    valid, complaints = [], []
    for i, polygon in enumerate(segmentation):
        # pycocotools would read four numbers as a box.
        points = len(polygon) // 2 if isinstance(polygon, list) else 0
        if points < 3 or len(polygon) % 2:
            complaints.append(f"polygon {i} has {points} points")
        elif not all(isinstance(x, (int, float)) and abs(x) <= MAX_COORDINATE for x in polygon):
            complaints.append(f"polygon {i} has points that are not numbers or far outside the image")
        elif not _covers_a_pixel(polygon, size):
            complaints.append(f"polygon {i} covers no pixel: it is outside the image or has no area")
        else:
            valid.append(tuple(polygon))
    if not valid:
        raise ValueError("; ".join(complaints))
    return tuple(valid), complaints


def _covers_a_pixel(polygon: list[float], size: Size) -> bool:
    """Whether a polygon (x, y, x, y, ...) covers pixels; it is drawn only if this is not obvious."""
    x, y = np.asarray(polygon, float).reshape(-1, 2).T
    doubled_area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
    inside = x.min() >= 0 and y.min() >= 0 and x.max() <= size[1] and y.max() <= size[0]
    return bool(inside and doubled_area > 8) or area(from_coco((polygon,), size), size) > 0


def from_coco(segmentation: Any, size: Size) -> str:
    """The counts of polygons (their union) or an RLE from `usable`.

    Raises:
        ValueError: an RLE has another size.
    """
    if isinstance(segmentation, str):
        need_valid(segmentation, size)
        return segmentation
    polygons: Any = [[float(x) for x in polygon] for polygon in segmentation]
    return _counts(coco.merge(coco.frPyObjects(polygons, *size)))


def from_rle(rle: dict[str, Any], size: Size) -> str:
    """The counts of an RLE {"size", "counts"}, compressed or as a list.

    Raises:
        ValueError: it is not a valid RLE of this size.
    """
    found = rle.get("size")
    height_width = tuple(found) if isinstance(found, list | tuple) else ()
    if height_width != tuple(size):
        raise ValueError(f"a mask of {_times(height_width)} pixels for an image of {_times(size)}")
    counts = rle.get("counts")
    if isinstance(counts, list):
        if not all(isinstance(n, int) and n >= 0 for n in counts) or sum(counts) != size[0] * size[1]:
            raise ValueError(f"its runs do not add up to {_times(size)} pixels")
        runs: Any = {"size": list(size), "counts": counts}
        counts = _counts(coco.frPyObjects(runs, *size))
    if not isinstance(counts, str):
        raise ValueError("no counts")
    need_valid(counts, size)
    return encode(decode(counts, size))  # in its shortest form


def _times(size: Sequence[Any]) -> str:
    return " x ".join(map(short_repr, size)) or "no"


def union(masks: Sequence[str], size: Size) -> str:
    """Counts of the union of the masks; an empty mask for no masks."""
    if not masks:
        return encode(np.zeros(size, np.uint8))
    return _counts(coco.merge([_rle(counts, size) for counts in masks]))


def with_ignored(counts: str, ignored: str, size: Size) -> UInt8[np.ndarray, "H W"]:
    """A mask with 1 for the object, 255 for ignored pixels and 0 elsewhere; `ignored` may be ""."""
    mask = decode(counts, size).astype(np.uint8)
    if ignored:
        mask[decode(ignored, size)] = IGNORE
    return mask


def to_model_mask(mask: UInt8[np.ndarray, "H W"], size: int) -> UInt8[np.ndarray, "{size} {size}"]:
    """A mask at the model's size: 1 where the target covers at least half of the pixel, else 0.

    For a target too thin or too small to cover any pixel completely, the limit is half of its largest
    coverage of a pixel, so that a line stays one pixel wide. Only an empty mask becomes empty.

    Args:
        mask: 1 at the target; ignored pixels (255) are background.
        size: side of the square, pixels.
    """
    target = Image.fromarray((mask == 1).astype(np.float32))  # 8 bits would round small coverages to 0
    coverage = np.asarray(target.resize((size, size), Image.Resampling.BOX))
    return ((coverage > 0) & (coverage >= coverage.max() / 2 - TOLERANCE)).astype(np.uint8)
