"""Referring expressions for exactly one shape."""

import dataclasses
import itertools
from collections.abc import Collection

import numpy as np

from genmask_jax.data.refershapes.scene import Shape
from genmask_jax.data.refershapes.styles import SMALLER, Style

PLACES: dict[str, tuple[int, int]] = {
    "on the left": (0, -1),
    "on the right": (0, 1),
    "at the top": (1, -1),
    "at the bottom": (1, 1),
}
"""Axis (0 across, 1 down) and direction in which the object is furthest among the matching ones."""


PLACE_MARGIN = 0.12
"""Least distance to the next object along the axis, as a share of the side."""


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


def _furthest(fits: list[int], place: str, shapes: tuple[Shape, ...], size: int) -> int | None:
    """Which of at least two shapes is furthest towards a place; None if the margin is too small."""
    axis, sign = PLACES[place]
    reach = sorted((sign * shapes[i].centre[axis], i) for i in fits)
    return reach[-1][1] if reach[-1][0] - reach[-2][0] >= PLACE_MARGIN * size else None


def sizes_among(fits: list[int], shapes: tuple[Shape, ...], style: Style) -> dict[int, str]:
    """The size ("small" or "large") of each of some shapes among them; "" if it is not clear.

    In muted scenes, each shape is small or large. In varied scenes, the widest gap between the radii
    separates small shapes from large ones, if it is wide enough.
    """
    if not style.varied or len(fits) == 1:
        return {i: shapes[i].size for i in fits}
    order = sorted(fits, key=lambda i: shapes[i].radius)
    radii = [shapes[i].radius for i in order]
    ratios = [large / small for small, large in itertools.pairwise(radii)]
    if max(ratios) < SMALLER:
        return dict.fromkeys(fits, "")
    first_large = 1 + ratios.index(max(ratios))
    return {i: "small" if rank < first_large else "large" for rank, i in enumerate(order)}


def expressions_for(target: int, shapes: tuple[Shape, ...], size: int, style: Style) -> tuple[list, list]:
    """All expressions that refer to exactly one shape: those without and those with a place."""
    shape = shapes[target]
    plain, placed = [], []
    for keep in itertools.product((False, True), repeat=3):
        by_size, colour, kind = keep
        said = Expression(
            colour=shape.colour if colour else None,
            kind=shape.kind if kind else None,
        )
        fits = [
            i for i, s in enumerate(shapes) if said.colour in (None, s.colour) and said.kind in (None, s.kind)
        ]
        if by_size:
            sizes = sizes_among(fits, shapes, style)
            if not sizes[target]:
                continue
            said = dataclasses.replace(said, size=sizes[target])
            fits = [i for i in fits if sizes[i] == sizes[target]]
        if len(fits) > 1:
            places = (place for place in PLACES if _furthest(fits, place, shapes, size) == target)
            placed += [dataclasses.replace(said, place=place) for place in places]
        elif any(keep):
            plain.append(said)
    return plain, placed


def absent_from(there: Collection[tuple[str, str]], style: Style, rng: np.random.Generator) -> Expression:
    """An expression for an absent object: a kind or a colour (a quarter each), or both (half).

    `there`: colour and kind of every object in the scene.
    """
    colours, kinds = ({names[i] for names in there} for i in (0, 1))
    others = {
        "kind": [Expression(kind=kind) for kind in style.kinds if kind not in kinds],
        "colour": [Expression(colour=colour) for colour in style.colours if colour not in colours],
        "both": [
            Expression(colour=colour, kind=kind)
            for colour, kind in itertools.product(style.colours, style.kinds)
            if (colour, kind) not in there
        ],
    }
    options = others[("kind", "colour", "both", "both")[rng.integers(4)]]
    return options[rng.integers(len(options))]


def say(
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
        hidden = [[said for said in options if not said.colour] for options in (plain, placed)]
        plain, placed = hidden if any(hidden) else (plain, placed)
    options = placed if placed and (not plain or rng.random() < 0.35) else plain
    return options[rng.integers(len(options))] if options else None
