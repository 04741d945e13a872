"""A rule that says whether an image shows exactly what a ReferShapes prompt names, for generated scenes.

Every connected region of a vivid colour is an object. The prompt's objects must be there, each with its
colour, kind and (where it is named) size, and nothing else. All of 400 real images of the test split pass,
softened ones too (see `tests/evaluation`).
"""

from typing import cast

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from genmask_jax.data.refershapes.scene import COLOURS, SIZES
from genmask_jax.evaluation.shape_rule import AREA, MAX_COLOUR_DISTANCE, best_kind

Named = tuple[str, str, str]
"""Size ("small", "large", or "" if it is not named), colour and kind."""

VIVID, WHITE = 60, 170
"""Backgrounds are muted: a pixel is an object's if its channels differ by more, or if all are above WHITE."""
BETWEEN = (SIZES["small"][1] + SIZES["large"][0]) / 2
"""Radius between small and large, as a share of the image's side."""


def shows(image: UInt8[np.ndarray, "S S 3"], text: str) -> bool:
    """Whether an image shows the objects of a prompt such as "a red star and a small white circle"."""
    asked, left = named_in(text), objects_in(image)
    if len(asked) != len(left):
        return False
    for size, colour, kind in sorted(asked, key=lambda named: not named[0]):  # the most particular first
        fits = [one for one in left if one[1:] == (colour, kind) and size in ("", one[0])]
        if not fits:
            return False
        left.remove(fits[0])
    return True


def named_in(text: str) -> list[Named]:
    """The objects that a prompt of `ReferShapesGenerate` lists."""
    found = []
    for phrase in text.replace(" and ", ", ").split(", "):
        *size, colour, kind = phrase.split()[1:]  # without the article
        found.append((size[0] if size else "", colour, kind))
    return found


def objects_in(image: UInt8[np.ndarray, "S S 3"]) -> list[Named]:
    """The objects in an image; the kind of what has no shape is ""."""
    channels = image.astype(np.int32)
    vivid = (np.ptp(channels, axis=-1) > VIVID) | (channels.min(-1) > WHITE)
    palette = np.array(list(COLOURS.values()))
    distances = np.linalg.norm(channels[:, :, None] - palette, axis=-1)
    nearest = np.where(vivid & (distances.min(-1) < MAX_COLOUR_DISTANCE), distances.argmin(-1), -1)
    found = []
    for i, colour in enumerate(COLOURS):
        labels, count = cast(tuple[np.ndarray, int], ndimage.label(nearest == i))
        for number in range(1, count + 1):
            blob = labels == number
            if blob.mean() >= AREA[0]:
                kind, radius = best_kind(blob)
                found.append(("large" if radius > BETWEEN * len(image) else "small", colour, kind))
    return found
