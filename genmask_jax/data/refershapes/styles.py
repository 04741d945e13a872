"""What scenes of ReferShapes look like: the muted scenes of its first version, and varied ones."""

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
PURE = {name: np.array(ImageColor.getrgb(name), float) for name in COLOURS}
"""The colours that drawing programs have under these names."""
SMALL_BELOW, LARGE_ABOVE = 0.15, 0.215
"""Radii, as shares of the side, of what is small or large without comparison."""
SMALLER = 1.3
"""Among several objects, small and large ones differ by this factor or more."""


@dataclasses.dataclass(frozen=True)
class Style:
    """What scenes of a split have.

    kinds, colours: of shapes; colours by name, RGB.
    turns: the most that a shape of each kind is turned, in radians, either way.
    areas: smallest and largest share of the image that a shape covers.
    middle_radius: between small and large shapes, as a share of the side.
    varied: whether there are plain and light backgrounds, sizes from a range, outlines and shadows.
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
"""Plain backgrounds from black to white beside the textured ones, any size, turned shapes."""

STYLES = {"muted": MUTED, "varied": VARIED}
