"""Scenes for evaluation, drawn with Pillow: other code, colours, sizes and edges than in training.

Three shapes of different kinds and colours, in Pillow's named colours, on a plain background; 200 to 800
pixels, square or 4 : 3. Kinds and colours are those of muted scenes, so that all models of ReferShapes can be
scored.
"""

import math

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from genmask_jax.data.examples import AbsentExample
from genmask_jax.data.refershapes.styles import MUTED
from genmask_jax.data.refershapes.words import absent_expression
from genmask_jax.utils.images import to_model_size

BACKGROUNDS = {
    **{"black": (0, 0, 0), "dark": (40, 42, 54), "grey": (128, 128, 128), "light grey": (220, 220, 220)},
    **{"white": (255, 255, 255), "cream": (250, 243, 221), "sky": (160, 205, 245)},
}
LIGHT_BACKGROUNDS = ("light grey", "white", "cream", "sky")
LENGTH = 1024
SUPERSAMPLING = 4
"""Factor by which shapes are drawn larger, and then reduced."""
MIN_CONTRAST = 80.0
"""Smallest distance of a shape's colour from the background, in RGB."""


def outline(kind: str, radius: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """The corners of a shape around the origin, y down."""

    def corners(radii: list[float], start: float) -> list[tuple[float, float]]:
        angles = (start + 2 * math.pi * i / len(radii) for i in range(len(radii)))
        return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]

    up = -math.pi / 2
    if kind == "square":
        return corners([radius] * 4, math.pi / 4)
    if kind == "triangle":
        return corners([radius] * 3, up)
    if kind == "star":
        return corners([radius, radius * rng.uniform(0.38, 0.5)] * 5, up)
    if kind == "diamond":
        return corners([radius, radius * rng.uniform(0.55, 0.7)] * 2, up)
    if kind == "cross":
        arm = radius * rng.uniform(0.25, 0.35)
        quarter = [(arm, -radius), (arm, -arm), (radius, -arm)]
        return [_rotate(point, math.pi / 2 * i) for i in range(4) for point in quarter]
    return corners([radius] * 180, 0)


def _rotate(point: tuple[float, float], angle: float) -> tuple[float, float]:
    (x, y), cos, sin = point, math.cos(angle), math.sin(angle)
    return cos * x - sin * y, sin * x + cos * y


class HandDrawn:
    """The split `hand_drawn`: expressions, also those for absent objects, name a kind, a colour, or both."""

    style = MUTED

    def __init__(self, size: int, seed: int = 0):
        """`size`: side of the square to which images are stretched; masks keep the image's own size."""
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> AbsentExample:
        image, masks, names, background, rng = self._draw(index)
        target, other = (int(i) for i in rng.permutation(len(masks))[:2])
        attributes = ("kind", "colour", "colour+kind")[rng.integers(3)]
        texts = [_phrase(attributes, *names[i]) for i in (target, other)]
        absent = absent_expression(names, self.style, np.random.default_rng((self.seed, 11, index)))
        return {
            "image": to_model_size(image, self.size),
            "mask": masks[target],
            "text": texts[0],
            "id": f"hand_drawn-{index}",
            "group": f"{attributes} on {'light' if background in LIGHT_BACKGROUNDS else 'dark'}",
            "other_text": texts[1],
            "other_mask": masks[other],
            "objects_mask": np.max(masks, axis=0),
            "absent_text": absent.phrase(),
            "absent_group": absent.group,
        }

    def image(self, index: int) -> np.ndarray:
        """The image at its own size, uint8 [H, W, 3]."""
        return self._draw(index)[0]

    def _draw(
        self, index: int
    ) -> tuple[np.ndarray, list[np.ndarray], list[tuple[str, str]], str, np.random.Generator]:
        """Image, masks, (colour, kind) of each shape, name of the background, and the generator."""
        if not 0 <= index < LENGTH:
            raise IndexError(index)
        rng = np.random.default_rng((self.seed, 10, index))
        width = int(rng.integers(200, 801))
        height = width if rng.random() < 0.5 else width * 3 // 4
        background = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
        background_rgb = np.array(BACKGROUNDS[background], float)
        rgb_of = {name: np.array(ImageColor.getrgb(name), float) for name in self.style.colours}
        colours = [
            name for name, rgb in rgb_of.items() if np.linalg.norm(rgb - background_rgb) >= MIN_CONTRAST
        ]
        image = np.broadcast_to(background_rgb, (height, width, 3))
        masks, names, taken = [], [], []
        for kind, colour in zip(
            rng.permutation(self.style.kinds)[:3], rng.permutation(colours)[:3], strict=True
        ):
            radius, centre = _free_place(rng, (width, height), taken)
            taken.append((centre, radius))
            share = _coverage(str(kind), centre, radius, (width, height), rng)
            image = image + share[..., None] * (rgb_of[colour] - image)
            masks.append((share > 0.5).astype(np.uint8))
            names.append((str(colour), str(kind)))
        return (image + 0.5).astype(np.uint8), masks, names, background, rng


def _phrase(attributes: str, colour: str, kind: str) -> str:
    return {"kind": f"the {kind}", "colour": f"the {colour} object"}.get(attributes, f"the {colour} {kind}")


def _free_place(
    rng: np.random.Generator, size: tuple[int, int], taken: list[tuple[tuple[float, float], float]]
) -> tuple[float, tuple[float, float]]:
    """A radius and a centre (x, y) away from the border and from other shapes."""
    while True:
        radius = min(size) * rng.uniform(0.1, 0.2)
        x, y = (float(rng.uniform(1.05 * radius, side - 1.05 * radius)) for side in size)
        if all(math.dist((x, y), centre) > 1.05 * (radius + other) for centre, other in taken):
            return radius, (x, y)


def _coverage(
    kind: str, centre: tuple[float, float], radius: float, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Share of each pixel that a shape covers, float [H, W]."""
    turn = rng.uniform(-0.25, 0.25)
    points = [_rotate(point, turn) for point in outline(kind, radius, rng)]
    fine = [(SUPERSAMPLING * (centre[0] + x), SUPERSAMPLING * (centre[1] + y)) for x, y in points]
    canvas = Image.new("L", (SUPERSAMPLING * size[0], SUPERSAMPLING * size[1]))
    ImageDraw.Draw(canvas).polygon(fine, fill=255)
    return np.asarray(canvas.resize(size, Image.Resampling.BICUBIC, reducing_gap=None)) / 255.0
