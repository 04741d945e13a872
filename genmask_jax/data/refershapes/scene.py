"""Scenes of ReferShapes: coloured shapes on a background."""

import dataclasses
import math

import numpy as np

from genmask_jax.data.refershapes import backgrounds
from genmask_jax.data.refershapes.kinds import around, coverage
from genmask_jax.data.refershapes.styles import LARGE_ABOVE, PURE_COLOURS, SMALL_BELOW, Style

SIZES: dict[str, tuple[float, float]] = {"small": (0.14, 0.16), "large": (0.215, 0.245)}
"""Ranges of the circumscribed circle's radius in muted scenes, as shares of the image's side."""
RADII = (0.1, 0.27)
"""Range of the radius in varied scenes."""
MIN_CONTRAST = 95.0
"""Smallest distance in RGB of a shape's colour from the background around it, in varied scenes."""
OUTLINE_SHARE, SHADOW_SHARE = 0.15, 0.15
"""Shares of shapes with a darker outline, and with a shadow, in varied scenes."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """An object: names of its attributes, centre (x, y) and radius in pixels, angle in radians, RGB.

    size: "small", "large", or "" between them.
    outline: width of its outline in pixels, 0 for none.
    shadow: offset (x, y) of its shadow in pixels, (0, 0) for none.
    """

    kind: str
    colour: str
    size: str
    centre: tuple[float, float]
    radius: float
    angle: float
    rgb: np.ndarray
    outline: float = 0.0
    shadow: tuple[float, float] = (0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Scene:
    """A scene of N shapes.

    image: uint8 [S, S, 3].
    shapes: the shapes, from back to front.
    masks: bool [N, S, S], the visible parts.
    areas: int [N], pixels of each shape, including hidden ones.
    """

    image: np.ndarray
    shapes: tuple[Shape, ...]
    masks: np.ndarray
    areas: np.ndarray

    @property
    def visible(self) -> np.ndarray:
        """Visible share of each shape, float [N]."""
        return self.masks.sum((1, 2)) / self.areas


def _place_muted(rng: np.random.Generator, count: int, size: int, style: Style) -> list[Shape]:
    shapes: list[Shape] = []
    for _ in range(12 * count):
        name = "large" if rng.random() < 0.5 else "small"
        radius = size * rng.uniform(*SIZES[name])
        centre = _free_place(rng, radius, size, shapes)
        if centre is None:
            continue
        kind = style.kinds[rng.integers(len(style.kinds))]
        colour = list(style.colours)[rng.integers(len(style.colours))]
        rgb = _shade(rng, np.array(style.colours[colour]))
        shapes.append(Shape(kind, colour, name, centre, radius, _draw_angle(rng, style, kind), rgb))
        if len(shapes) == count:
            break
    return shapes


def _place_varied(
    rng: np.random.Generator, count: int, size: int, style: Style, background: np.ndarray, purity: float
) -> list[Shape]:
    shapes: list[Shape] = []
    for _ in range(12 * count):
        share = rng.uniform(*RADII)
        radius = size * share
        centre = _free_place(rng, radius, size, shapes)
        if centre is None:
            continue
        kind = style.kinds[rng.integers(len(style.kinds))]
        colours = _visible_on(background[_square(centre, radius, size)], style)
        colour = colours[rng.integers(len(colours))]
        name = "small" if share < SMALL_BELOW else "large" if share > LARGE_ABOVE else ""
        outlined = rng.random() < OUTLINE_SHARE and kind != "ring"  # too thin for an outline
        outline = radius * rng.uniform(0.06, 0.1) if outlined else 0.0
        shadow = radius * rng.uniform(0.1, 0.25, 2) if rng.random() < SHADOW_SHARE else np.zeros(2)
        pure = purity * rng.random()
        rgb = _shade(rng, (1 - pure) * np.array(style.colours[colour]) + pure * PURE_COLOURS[colour])
        angle = _draw_angle(rng, style, kind)
        x, y = shadow.tolist()
        shapes.append(Shape(kind, colour, name, centre, radius, angle, rgb, outline, (x, y)))
        if len(shapes) == count:
            break
    return shapes


def _free_place(
    rng: np.random.Generator, radius: float, size: int, shapes: list[Shape]
) -> tuple[float, float] | None:
    x, y = rng.uniform(radius, size - radius, 2).tolist()
    overlaps = any(math.dist((x, y), s.centre) < 0.95 * (radius + s.radius) for s in shapes)
    return None if overlaps else (x, y)


def _shade(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    return np.clip(colour + rng.uniform(-10, 10, 3), 0, 255).astype(np.float32)


def _draw_angle(rng: np.random.Generator, style: Style, kind: str) -> float:
    return rng.uniform(-style.turns[kind], style.turns[kind])


def _square(centre: tuple[float, float], radius: float, size: int) -> tuple[slice, slice]:
    columns, rows = (slice(max(0, int(c - radius)), min(size, int(c + radius) + 1)) for c in centre)
    return rows, columns


def _visible_on(background: np.ndarray, style: Style) -> list[str]:
    """The colours with enough contrast to a background; the one with the most if there are none."""
    pixels = background.reshape(-1, 3).T
    rgb = np.array(list(style.colours.values()))[..., None]
    # One channel at a time: NumPy is slow at reducing an axis of length 3.
    red, green, blue = (np.square(pixels[i] - rgb[:, i]) for i in range(3))
    distances = dict(zip(style.colours, np.sqrt((red + green + blue).min(1)), strict=True))
    visible = [name for name, distance in distances.items() if distance >= MIN_CONTRAST]
    return visible or [max(distances, key=distances.__getitem__)]


def draw_scene(rng: np.random.Generator, count: int, size: int, style: Style, purity: float = 0.0) -> Scene:
    """Draws at most `count` shapes (fewer if they do not fit); later ones cover earlier ones.

    `purity`: in varied scenes, how far colours may move from those of the style (0) to those of PURE (1).
    """
    if style.varied:
        is_plain = rng.random() < 0.5
        image = (
            backgrounds.plain(rng, size)
            if is_plain
            else backgrounds.textured(rng, size, backgrounds.ALL_GREYS)
        )
        shapes = _place_varied(rng, count, size, style, image, purity)
    else:
        shapes = _place_muted(rng, count, size, style)
        image = backgrounds.textured(rng, size, backgrounds.MUTED_GREYS)
    masks = np.zeros((len(shapes), size, size), bool)
    areas = np.zeros(len(shapes), int)
    for i, shape in enumerate(shapes):
        box, covered = _paint(image, shape)
        masks[(slice(None, i), *box)] &= ~covered
        masks[i][box] = covered
        areas[i] = np.count_nonzero(covered)
    return Scene(np.clip(image + 0.5, 0, 255).astype(np.uint8), tuple(shapes), masks, areas)


def _paint(image: np.ndarray, shape: Shape) -> tuple[tuple[slice, slice], np.ndarray]:
    """Draws a shape with its shadow and outline; returns its box and the covered pixels."""
    size = len(image)
    if any(shape.shadow):
        x, y = shape.centre[0] + shape.shadow[0], shape.centre[1] + shape.shadow[1]
        box, signed = around(shape.kind, (x, y), shape.radius, shape.angle, size)
        image[box] *= 1 - 0.3 * np.clip(0.5 - signed / 3, 0.0, 1.0)[..., None]
    box, share = coverage(shape.kind, shape.centre, shape.radius, shape.angle, size)
    rgb = shape.rgb
    if shape.outline:
        _, signed = around(shape.kind, shape.centre, shape.radius, shape.angle, size)
        inside = np.clip(0.5 - signed - shape.outline, 0.0, 1.0)[..., None]
        rgb = 0.6 * shape.rgb + inside * (0.4 * shape.rgb)
    image[box] += share[..., None] * (rgb - image[box])
    return box, share > 0.5
