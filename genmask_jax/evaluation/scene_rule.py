"""A rule that decides whether a generated image shows exactly the objects of a ReferShapes prompt.

Every connected region of a named colour that is not background is an object. The image must show every object
of the prompt, with its colour, kind and (if the prompt names it) size, and no other objects. Nearly all real
images of the test split pass, also if they are blurred (see `tests/evaluation`).
"""

from collections import Counter
from typing import cast

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from genmask_jax.data.refershapes.styles import Style
from genmask_jax.evaluation.shape_rule import best_kind, nearest_colours

PromptObject = tuple[str, str, str]
"""Size ("small", "large", or "" if it is not named), colour and kind."""
DetectedObject = tuple[float, str, str]
"""Radius as a share of the image's side, colour and kind ("" for an unknown shape)."""
MIN_CHROMA, MIN_WHITE = 60, 170
"""In muted scenes, the channels of an object's pixels differ by more than MIN_CHROMA, or exceed MIN_WHITE."""


def matches_prompt(image: UInt8[np.ndarray, "S S 3"], text: str, style: Style) -> bool:
    """Whether an image shows exactly the objects of a prompt such as "a red star and a white circle"."""
    expected, unmatched = parse_prompt(text), detect_objects(image, style)
    if len(expected) != len(unmatched):
        return False
    for size, colour, kind in sorted(expected, key=lambda item: not item[0]):  # those with a size first
        matches = [d for d in unmatched if d[1:] == (colour, kind) and _has_size(d[0], size, style)]
        if not matches:
            return False
        unmatched.remove(matches[0])
    return True


def found_objects(image: UInt8[np.ndarray, "S S 3"], text: str, style: Style) -> dict[str, float]:
    """F1 scores in [0, 1] of the objects that an image shows; missing and extra objects lower them.

    Returns:
        `objects`: objects with the right colour and kind; `colours`: objects with the right colour.
    """
    expected, detected = parse_prompt(text), detect_objects(image, style)
    total = len(expected) + len(detected)
    views = {"objects": lambda item: item[1:], "colours": lambda item: item[1]}
    shared = {n: Counter(map(view, expected)) & Counter(map(view, detected)) for n, view in views.items()}
    return {name: 2 * count.total() / total for name, count in shared.items()}


def _has_size(radius: float, size: str, style: Style) -> bool:
    return not size or (radius > style.middle_radius) == (size == "large")


def parse_prompt(text: str) -> list[PromptObject]:
    """Returns the objects that a prompt of `ReferShapesGenerate` lists."""
    objects = []
    for phrase in text.replace(" and ", ", ").split(", "):
        *size, colour, kind = phrase.split()[1:]  # without the article
        objects.append((size[0] if size else "", colour, kind))
    return objects


def detect_objects(image: UInt8[np.ndarray, "S S 3"], style: Style) -> list[DetectedObject]:
    """Returns the objects in an image."""
    nearest = nearest_colours(image, style)
    if not style.varied:
        channels = image.astype(np.int32)
        nearest[(np.ptp(channels, axis=-1) <= MIN_CHROMA) & (channels.min(-1) <= MIN_WHITE)] = -1
    objects = []
    for i, colour in enumerate(style.colours):
        labels, count = cast(tuple[np.ndarray, int], ndimage.label(nearest == i))
        for number in range(1, count + 1):
            blob = labels == number
            if blob.mean() >= style.areas[0]:
                kind, radius = best_kind(blob, style)
                objects.append((radius / len(image), colour, kind))
    return objects
