"""Referring expressions for exactly one shape."""

import dataclasses
import itertools
from collections.abc import Collection

import numpy as np

from genmask_jax.data.refershapes.scene import Shape
from genmask_jax.data.refershapes.styles import MIN_SIZE_RATIO, Style

PLACES: dict[str, tuple[int, int]] = {
    "on the left": (0, -1),
    "on the right": (0, 1),
    "at the top": (1, -1),
    "at the bottom": (1, 1),
}
"""Axis (0 across, 1 down) and direction in which the object is furthest among the matching ones."""


PLACE_MARGIN = 0.12
"""Smallest distance to the next object along the axis, as a share of the side."""


@dataclasses.dataclass(frozen=True)
class Expression:
    """The attributes in an expression; None for those that it does not name."""

    size: str | None = None
    colour: str | None = None
    kind: str | None = None
    place: str | None = None

    @property
    def group(self) -> str:
        """The named attributes, such as "colour+kind"."""
        return "+".join(name for name, value in dataclasses.asdict(self).items() if value)

    def phrase(self, noun: str = "object") -> str:
        """ "the small red star on the left"; `noun` is used without a kind."""
        words = ("the", self.size, self.colour, self.kind or noun, self.place)
        return " ".join(word for word in words if word)


def _furthest(candidates: list[int], place: str, shapes: tuple[Shape, ...], size: int) -> int | None:
    """Which of at least two shapes is furthest towards a place; None if the margin is too small."""
    axis, sign = PLACES[place]
    positions = sorted((sign * shapes[i].centre[axis], i) for i in candidates)
    return positions[-1][1] if positions[-1][0] - positions[-2][0] >= PLACE_MARGIN * size else None


def sizes_among(candidates: list[int], shapes: tuple[Shape, ...], style: Style) -> dict[int, str]:
    """The size ("small" or "large") of each of some shapes among them; "" if it is not clear.

    In muted scenes, each shape is small or large. In varied scenes, the widest gap between the radii
    separates small shapes from large ones, if it is wide enough.
    """
    if not style.varied or len(candidates) == 1:
        return {i: shapes[i].size for i in candidates}
    order = sorted(candidates, key=lambda i: shapes[i].radius)
    radii = [shapes[i].radius for i in order]
    ratios = [large / small for small, large in itertools.pairwise(radii)]
    if max(ratios) < MIN_SIZE_RATIO:
        return dict.fromkeys(candidates, "")
    first_large = 1 + ratios.index(max(ratios))
    return {i: "small" if rank < first_large else "large" for rank, i in enumerate(order)}


def expressions_for(target: int, shapes: tuple[Shape, ...], size: int, style: Style) -> tuple[list, list]:
    """All expressions that refer to exactly one shape: those without and those with a place."""
    shape = shapes[target]
    plain, placed = [], []
    for attributes in itertools.product((False, True), repeat=3):
        by_size, colour, kind = attributes
        expression = Expression(
            colour=shape.colour if colour else None,
            kind=shape.kind if kind else None,
        )
        matches = [
            i
            for i, s in enumerate(shapes)
            if expression.colour in (None, s.colour) and expression.kind in (None, s.kind)
        ]
        if by_size:
            sizes = sizes_among(matches, shapes, style)
            if not sizes[target]:
                continue
            expression = dataclasses.replace(expression, size=sizes[target])
            matches = [i for i in matches if sizes[i] == sizes[target]]
        if len(matches) > 1:
            places = (place for place in PLACES if _furthest(matches, place, shapes, size) == target)
            placed += [dataclasses.replace(expression, place=place) for place in places]
        elif any(attributes):
            plain.append(expression)
    return plain, placed


def absent_expression(
    present: Collection[tuple[str, str]], style: Style, rng: np.random.Generator
) -> Expression:
    """An expression for an absent object: a kind or a colour (a quarter each), or both (half).

    `present`: colour and kind of every object in the scene.
    """
    colours, kinds = ({names[i] for names in present} for i in (0, 1))
    by_kind = {
        "kind": [Expression(kind=kind) for kind in style.kinds if kind not in kinds],
        "colour": [Expression(colour=colour) for colour in style.colours if colour not in colours],
        "both": [
            Expression(colour=colour, kind=kind)
            for colour, kind in itertools.product(style.colours, style.kinds)
            if (colour, kind) not in present
        ],
    }
    options = by_kind[("kind", "colour", "both", "both")[rng.integers(4)]]
    return options[rng.integers(len(options))]


def draw_expression(
    rng: np.random.Generator,
    target: int,
    shapes: tuple[Shape, ...],
    size: int,
    style: Style,
    without_colour: float = 0.0,
) -> Expression | None:
    """Draws an expression that refers to exactly one shape; None if there is none.

    `without_colour`: probability of using only expressions without a colour, if there are any.
    """
    plain, placed = expressions_for(target, shapes, size, style)
    if without_colour and rng.random() < without_colour:
        colourless = [
            [expression for expression in options if not expression.colour] for options in (plain, placed)
        ]
        plain, placed = colourless if any(colourless) else (plain, placed)
    options = placed if placed and (not plain or rng.random() < 0.35) else plain
    return options[rng.integers(len(options))] if options else None
