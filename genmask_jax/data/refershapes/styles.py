"""Styles of ReferShapes' scenes: muted and varied."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from PIL import ImageColor

from genmask_jax.data.refershapes.kinds import KINDS

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 165, 60),
    "blue": (50, 80, 225),
    "yellow": (240, 215, 50),
    "purple": (155, 55, 195),
    "orange": (245, 130, 25),
    "cyan": (60, 205, 215),
    "white": (245, 245, 245),
    "pink": (245, 130, 180),
    "black": (15, 15, 15),
}
PURE_COLOURS = {name: np.array(ImageColor.getrgb(name), float) for name in COLOURS}
"""RGB of the same names in drawing programs."""
SMALL_BELOW, LARGE_ABOVE = 0.15, 0.215
"""Radii, as shares of the side, below and above which a single shape is small or large."""
MIN_SIZE_RATIO = 1.3
"""Smallest ratio of radii between large and small shapes."""


@dataclasses.dataclass(frozen=True)
class Style:
    """The style of scenes.

    kinds: kinds of shapes.
    colours: colours of shapes by name, RGB.
    turns: largest rotation of each kind in either direction, radians.
    areas: smallest and largest share of the image that a shape covers.
    middle_radius: radius between small and large shapes, as a share of the side.
    varied: whether there are plain and light backgrounds, continuous sizes, outlines and shadows.
    """

    kinds: tuple[str, ...]
    colours: Mapping[str, tuple[int, int, int]]
    turns: Mapping[str, float]
    areas: tuple[float, float]
    middle_radius: float
    varied: bool


MUTED = Style(
    kinds=KINDS[:6],
    colours=dict(list(COLOURS.items())[:8]),
    turns=dict.fromkeys(KINDS[:6], 0.2),
    areas=(0.012, 0.2),
    middle_radius=0.1875,
    varied=False,
)
"""Muted, textured backgrounds, two sizes, nearly upright shapes."""

VARIED = Style(
    kinds=KINDS,
    colours=COLOURS,
    turns={
        **dict.fromkeys(("circle", "ring"), 0.0),
        **{"star": np.pi / 5, "triangle": np.pi / 3, "cross": np.pi / 4},  # any angle
        **dict.fromkeys(("square", "diamond", "heart"), 0.35),  # a square on its corner is nearly a diamond
    },
    areas=(0.009, 0.25),
    middle_radius=(SMALL_BELOW + LARGE_ABOVE) / 2,
    varied=True,
)
"""Plain backgrounds from black to white and textured ones, any size, rotated shapes."""

STYLES = {"muted": MUTED, "varied": VARIED}
