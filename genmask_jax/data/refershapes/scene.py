"""Scenes of ReferShapes: coloured shapes drawn on a muted, textured background."""

import dataclasses
import math

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 165, 60),
    "blue": (50, 80, 225),
    "yellow": (240, 215, 50),
    "purple": (155, 55, 195),
    "orange": (245, 130, 25),
    "cyan": (60, 205, 215),
    "white": (245, 245, 245),
}


KINDS = ("circle", "square", "triangle", "star", "diamond", "cross")


SIZES: dict[str, tuple[float, float]] = {"small": (0.14, 0.16), "large": (0.215, 0.245)}
"""Radius of the circumscribed circle, as a range of shares of the image's side."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """One object: attributes by name, centre (x, y) and radius in pixels, angle in radians, RGB."""

    kind: str
    colour: str
    size: str
    centre: tuple[float, float]
    radius: float
    angle: float
    rgb: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image uint8 [S, S, 3], its shapes, and the visible part of each, bool [N, S, S].

    `areas` int [N] counts the pixels of each shape, hidden ones included.
    """

    image: np.ndarray
    shapes: tuple[Shape, ...]
    masks: np.ndarray
    areas: np.ndarray

    @property
    def visible(self) -> np.ndarray:
        """Visible share of each shape, float [N]."""
        return self.masks.sum((1, 2)) / self.areas


def distance(kind: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance to a shape around the origin, negative inside; in pixels near the edge."""
    if kind == "circle":
        return np.hypot(x, y) - 0.92 * radius
    if kind == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.76 * radius
    if kind == "diamond":
        return (np.abs(x) / 0.62 + np.abs(y)) * 0.527 - 0.527 * radius
    if kind == "cross":
        x, y, arm = np.abs(x), np.abs(y), 0.3 * radius
        return np.minimum(np.maximum(x - arm, y - 0.92 * radius), np.maximum(x - 0.92 * radius, y - arm))
    if kind == "triangle":
        slope = np.abs(x) * np.sin(np.pi / 3) - y * np.cos(np.pi / 3)
        return np.maximum(y, slope) - 0.55 * radius
    # A star: fold the plane onto half of one point, whose edge runs from the tip to the inner corner.
    angle = np.abs((np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    length = np.hypot(x, y)
    px, py = length * np.cos(angle), length * np.sin(angle)
    inner = 0.45 * radius * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    normal = np.array([inner[1], radius - inner[0]])
    normal /= np.hypot(*normal)
    return (px - radius) * normal[0] + py * normal[1]


def coverage(kind: str, centre: tuple[float, float], radius: float, angle: float, size: int):
    """Share of each pixel that a shape covers, in its bounding box.

    Returns:
        (rows, columns) slices of the image and float32 coverage in [0, 1] there.
    """
    (x0, y0), reach = centre, int(np.ceil(radius)) + 2
    columns = slice(max(0, int(x0) - reach), min(size, int(x0) + reach + 1))
    rows = slice(max(0, int(y0) - reach), min(size, int(y0) + reach + 1))
    x = np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - x0)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5 - y0)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    signed = distance(kind, cos * x + sin * y, cos * y - sin * x, radius)
    return (rows, columns), np.clip(0.5 - signed, 0.0, 1.0)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A muted gradient with stripes, checks or waves over it, float32 [S, S, 3] in 0..255."""
    grey = rng.uniform(55, 150)
    first, second = grey + rng.uniform(-22, 22, (2, 3)).astype(np.float32)
    x, y = np.arange(size, dtype=np.float32) / size, np.arange(size, dtype=np.float32)[:, None] / size
    turn = rng.uniform(0, 2 * np.pi)
    along = np.float32(np.cos(turn)) * (x - 0.5) + np.float32(np.sin(turn)) * (y - 0.5) + 0.5
    texture, pitch, phase = rng.integers(4), rng.uniform(2, 6), rng.uniform(0, 2 * np.pi, 2)
    across, down = (2 * np.pi * pitch * axis + p for axis, p in zip((x, y), phase, strict=True))
    if texture == 0:
        pattern = np.sin(across) * np.sin(down)
    elif texture == 1:
        pattern = np.sign(np.sin(across) * np.sin(down))
    elif texture == 2:
        pattern = np.sin(2 * np.pi * pitch * along + phase[0])
    else:
        pattern = np.zeros_like(along)
    plain = first + (second - first) * along[..., None]
    return plain + (rng.uniform(4, 12) * pattern[..., None]).astype(np.float32)


def _place_shapes(rng: np.random.Generator, count: int, size: int) -> list[Shape]:
    shapes: list[Shape] = []
    for _ in range(12 * count):
        name = "large" if rng.random() < 0.5 else "small"
        radius = size * rng.uniform(*SIZES[name])
        x, y = rng.uniform(radius, size - radius, 2).tolist()
        if any(math.dist((x, y), s.centre) < 0.95 * (radius + s.radius) for s in shapes):
            continue
        kind, colour = KINDS[rng.integers(len(KINDS))], list(COLOURS)[rng.integers(len(COLOURS))]
        rgb = np.clip(np.array(COLOURS[colour]) + rng.uniform(-10, 10, 3), 0, 255).astype(np.float32)
        angle = rng.uniform(-0.2, 0.2)
        shapes.append(Shape(kind, colour, name, (x, y), radius, angle, rgb))
        if len(shapes) == count:
            break
    return shapes


def draw_scene(rng: np.random.Generator, count: int, size: int) -> Scene:
    """Draws at most `count` shapes (fewer when they do not fit), later ones over earlier ones."""
    shapes = _place_shapes(rng, count, size)
    image = _background(rng, size)
    masks = np.zeros((len(shapes), size, size), bool)
    areas = np.zeros(len(shapes), int)
    for i, shape in enumerate(shapes):
        box, share = coverage(shape.kind, shape.centre, shape.radius, shape.angle, size)
        image[box] += share[..., None] * (shape.rgb - image[box])
        covered = share > 0.5
        masks[(slice(None, i), *box)] &= ~covered
        masks[i][box] = covered
        areas[i] = np.count_nonzero(covered)
    return Scene(np.clip(image + 0.5, 0, 255).astype(np.uint8), tuple(shapes), masks, areas)
