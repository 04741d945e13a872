"""ReferShapes: the embedded data set, drawn as it is read. No download, no files.

A scene holds a few shapes on a muted, textured ground. A referring expression names some of an object's size,
colour, kind and place, and is only used when it singles out exactly one object: attributes that no other
object shares, or a place that is extreme, by a clear margin, among the objects that share them. Splits differ
in their random seeds.
"""

import dataclasses
import itertools
import math
from typing import NamedTuple

import numpy as np

from genmask_jax.data.examples import GenerateExample, SegmentExample
from genmask_jax.errors import UserError

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
"""Radius of the circumscribed circle, as a range of shares of the picture's side."""
PLACES: dict[str, tuple[int, int]] = {
    "on the left": (0, -1),
    "on the right": (0, 1),
    "at the top": (1, -1),
    "at the bottom": (1, 1),
}
"""Axis (0 across, 1 down) and direction in which the object is furthest among those that match."""
PLACE_MARGIN = 0.12
"""How much further, as a share of the side, than the next object."""
MIN_VISIBLE = 0.85
SPLITS = {"train": 1_000_000, "val": 4096, "test": 4096}


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
    """A picture uint8 [S, S, 3], its shapes, and the visible part of each, bool [N, S, S].

    `areas` int [N] counts the pixels of each shape, hidden ones included.
    """

    image: np.ndarray
    shapes: tuple[Shape, ...]
    masks: np.ndarray
    areas: np.ndarray

    @property
    def visible(self) -> np.ndarray:
        """Share of each shape that no other hides, float [N]."""
        return self.masks.sum((1, 2)) / self.areas


@dataclasses.dataclass(frozen=True)
class Expression:
    """What is said of an object; None is left unsaid."""

    size: str | None = None
    colour: str | None = None
    kind: str | None = None
    place: str | None = None

    @property
    def group(self) -> str:
        """Which attributes are named, such as "colour+kind"."""
        return "+".join(name for name, value in dataclasses.asdict(self).items() if value)

    def phrase(self, noun: str = "object") -> str:
        """ "the small red star on the left"; `noun` stands for an unnamed kind."""
        words = ("the", self.size, self.colour, self.kind or noun, self.place)
        return " ".join(word for word in words if word)


def distance(kind: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance (near the edge, pixels) to a shape around the origin; negative inside."""
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
        (rows, columns) slices of the picture and float32 coverage in [0, 1] there.
    """
    (x0, y0), reach = centre, int(np.ceil(radius)) + 2
    columns = slice(max(0, int(x0) - reach), min(size, int(x0) + reach + 1))
    rows = slice(max(0, int(y0) - reach), min(size, int(y0) + reach + 1))
    x = np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - x0)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5 - y0)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    signed = distance(kind, cos * x + sin * y, cos * y - sin * x, radius)
    return (rows, columns), np.clip(0.5 - signed, 0.0, 1.0)


def _ground(rng: np.random.Generator, size: int) -> np.ndarray:
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
    ground = first + (second - first) * along[..., None]
    return ground + (rng.uniform(4, 12) * pattern[..., None]).astype(np.float32)


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
    """At most `count` shapes (fewer when they do not fit), later ones over earlier ones."""
    shapes = _place_shapes(rng, count, size)
    image = _ground(rng, size)
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


def _furthest(fits: list[int], place: str, shapes: tuple[Shape, ...], size: int) -> int | None:
    """Which of at least two shapes is furthest towards a place; None where the margin is not kept."""
    axis, sign = PLACES[place]
    reach = sorted((sign * shapes[i].centre[axis], i) for i in fits)
    return reach[-1][1] if reach[-1][0] - reach[-2][0] >= PLACE_MARGIN * size else None


def expressions_for(target: int, shapes: tuple[Shape, ...], size: int) -> tuple[list, list]:
    """All expressions that single out one shape: those without and those with a place."""
    shape = shapes[target]
    plain, placed = [], []
    for keep in itertools.product((False, True), repeat=3):
        named = (shape.size, shape.colour, shape.kind)
        said = tuple(value if kept else None for value, kept in zip(named, keep, strict=True))
        fits = [
            i
            for i, s in enumerate(shapes)
            if said[0] in (None, s.size) and said[1] in (None, s.colour) and said[2] in (None, s.kind)
        ]
        if len(fits) > 1:
            places = (place for place in PLACES if _furthest(fits, place, shapes, size) == target)
            placed += [Expression(*said, place) for place in places]
        elif any(keep):
            plain.append(Expression(*said))
    return plain, placed


def _say(rng: np.random.Generator, target: int, shapes: tuple[Shape, ...], size: int) -> Expression | None:
    plain, placed = expressions_for(target, shapes, size)
    options = placed if placed and (not plain or rng.random() < 0.35) else plain
    return options[rng.integers(len(options))] if options else None


class Composition(NamedTuple):
    """A scene, the indices of two of its shapes, an expression for each, and the first one's group."""

    scene: Scene
    target: int
    other: int
    text: str
    other_text: str
    group: str


class _Shapes:
    """Length, index check and the random generator of an example."""

    task = 0

    def __init__(self, split: str, size: int, seed: int = 0):
        """`split`: train, val or test; `size`: side of the pictures, pixels. Raises UserError."""
        if split not in SPLITS:
            raise UserError(f"refershapes: no split {split!r}; there are {', '.join(SPLITS)}")
        self.split, self.size, self.seed = split, size, seed

    def __len__(self) -> int:
        return SPLITS[self.split]

    def _rng(self, index: int) -> np.random.Generator:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return np.random.default_rng((self.seed, list(SPLITS).index(self.split), self.task, index))


class ReferShapesSegment(_Shapes):
    """Scenes of 2-5 shapes with an expression and the mask of the one shape that it names."""

    def compose(self, index: int) -> Composition:
        """The scene behind an example, with the two shapes that are named and how."""
        rng = self._rng(index)
        while True:
            scene = draw_scene(rng, int(rng.integers(2, 6)), self.size)
            if len(scene.shapes) < 2 or scene.visible.min() < MIN_VISIBLE:
                continue
            target, other = (int(i) for i in rng.permutation(len(scene.shapes))[:2])
            said = [_say(rng, i, scene.shapes, self.size) for i in (target, other)]
            if said[0] is None or said[1] is None:
                continue
            noun = ("object", "thing")[rng.integers(2)]
            texts = (said[0].phrase(noun), said[1].phrase(noun))
            return Composition(scene, target, other, *texts, said[0].group)

    def __getitem__(self, index: int) -> SegmentExample:
        made = self.compose(index)
        masks = made.scene.masks
        return {
            "image": made.scene.image,
            "mask": masks[made.target].astype(np.uint8),
            "text": made.text,
            "id": f"{self.split}-{index}",
            "group": made.group,
            "other_text": made.other_text,
            "other_mask": masks[made.other].astype(np.uint8),
            "objects_mask": masks.any(0).astype(np.uint8),
        }


class ReferShapesGenerate(_Shapes):
    """One shape with a prompt such as "a red star", or two or three with a prompt that lists them all."""

    task = 1

    def __getitem__(self, index: int) -> GenerateExample:
        rng = self._rng(index)
        count = 1 if rng.random() < 0.5 else int(rng.integers(2, 4))
        scene = draw_scene(rng, count, self.size)
        names = []
        for shape in scene.shapes:
            size = f"{shape.size} " if rng.random() < 0.5 else ""
            article = "an" if not size and shape.colour == "orange" else "a"
            names.append(f"{article} {size}{shape.colour} {shape.kind}")
        text = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        return {"image": scene.image, "text": text, "id": f"{self.split}-{index}"}
