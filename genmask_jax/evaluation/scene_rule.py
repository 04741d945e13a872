"""A rule that says whether an image shows exactly what a ReferShapes prompt names, for generated scenes.

Every connected region of a named colour that is not background is an object. The prompt's objects must be
there, each with its colour, kind and (where it is named) size, and nothing else. Nearly all real images of
the test split pass, softened ones too (see `tests/evaluation`).
"""

from typing import cast

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from genmask_jax.data.refershapes.styles import Style
from genmask_jax.evaluation.shape_rule import best_kind, nearest_colours

Named = tuple[str, str, str]
"""Size ("small", "large", or "" if it is not named), colour and kind."""
Found = tuple[float, str, str]
"""Radius as a share of the image's side, colour and kind ("" for what has no shape)."""
VIVID, WHITE = 60, 170
"""In muted scenes, a pixel is an object's if its channels differ by more, or if all are above WHITE."""


def shows(image: UInt8[np.ndarray, "S S 3"], text: str, style: Style) -> bool:
    """Whether an image shows the objects of a prompt such as "a red star and a small white circle"."""
    asked, left = named_in(text), objects_in(image, style)
    if len(asked) != len(left):
        return False
    for size, colour, kind in sorted(asked, key=lambda named: not named[0]):  # the most particular first
        fits = [one for one in left if one[1:] == (colour, kind) and _has(one[0], size, style)]
        if not fits:
            return False
        left.remove(fits[0])
    return True


def _has(radius: float, size: str, style: Style) -> bool:
    return not size or (radius > style.middle_radius) == (size == "large")


def named_in(text: str) -> list[Named]:
    """The objects that a prompt of `ReferShapesGenerate` lists."""
    found = []
    for phrase in text.replace(" and ", ", ").split(", "):
        *size, colour, kind = phrase.split()[1:]  # without the article
        found.append((size[0] if size else "", colour, kind))
    return found


def objects_in(image: UInt8[np.ndarray, "S S 3"], style: Style) -> list[Found]:
    """The objects in an image."""
    nearest = nearest_colours(image, style)
    if not style.varied:
        channels = image.astype(np.int32)
        nearest[(np.ptp(channels, axis=-1) <= VIVID) & (channels.min(-1) <= WHITE)] = -1
    found = []
    for i, colour in enumerate(style.colours):
        labels, count = cast(tuple[np.ndarray, int], ndimage.label(nearest == i))
        for number in range(1, count + 1):
            blob = labels == number
            if blob.mean() >= style.areas[0]:
                kind, radius = best_kind(blob, style)
                found.append((radius / len(image), colour, kind))
    return found
