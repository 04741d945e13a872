"""Referring expressions for the objects of a Stamps scene."""

import dataclasses
import functools

import numpy as np

from genmask_jax.data.stamps.scene import Scene, Stamp

PLACES: dict[str, tuple[int, int]] = {
    "on the left": (0, -1),
    "on the right": (0, 1),
    "at the top": (1, -1),
    "at the bottom": (1, 1),
    "leftmost": (0, -1),
    "rightmost": (0, 1),
}
"""Axis (0 across, 1 down) and direction in which the object is furthest; words in -most precede the noun."""
SIZES = {"largest": 1, "large": 1, "smallest": -1, "small": -1}
MIN_PLACE_MARGIN, MIN_SIZE_RATIO = 0.15, 1.6
"""Smallest distance (share of the side) and ratio of areas to the next object."""
MIN_COLOUR_SHARE = 0.3
"""A colour may refer to objects with at least this share of it and its near colours."""
NEAR_COLOURS = {
    "red": ("orange", "pink"),
    "orange": ("red", "yellow", "brown"),
    "yellow": ("orange", "green"),
    "green": ("teal", "yellow"),
    "blue": ("teal", "purple"),
    "purple": ("blue", "pink"),
    "pink": ("red", "purple"),
    "brown": ("orange",),
    "white": ("grey",),
    "black": (),
}
KINDS = {"name": 0.5, "colour": 0.14, "place": 0.2, "size": 0.16}
"""Kinds of expression and their shares; unseen objects have no "name"."""
CONFUSABLE_WORDS = (
    "grave gravestone headstone tombstone cemetery marker monument stone cross inukshuk",
    "chicken hen rooster turkey peahen peacock fowl",
    "duck drake gander",
    "blackbird crow pigeon cuckoo lark seagull",
    "rhea ostrich crane flamingo heron",
    "hornet hoverfly fly moth",
    "fish groper butterflyfish trout dolphinfish lionfish wrasse",
    "dolphin orca whale",
    "chimpanzee gorilla tamarin",
    "cow bull bison gnu yak zebu blackbuck",
    "sheep lamb ram goat",
    "camel dromedary",
    "lion tiger",
    "caribou deer doe wapiti blackbuck goat",
    "dog fox",
    "horse donkey zebra",
    "pig boars",
    "beaver marmot capybara squirrel otter ferret badger mouse rat wombat",
    "cello violin guitar",
    "drum kit cymbal",
    "flower flowers rose anemone anthurium balsam hibiscus daffodil iris marigold gazania petunia milkweed",
    "tree plant birch oak palm lettuce eggplant thyme lavender rambutan",
    "orange apricot",
    "hammer mallet",
    "bin mailbox box",
    "car truck tank vehicle dumper bus",
    "jet airplane",
    "ship sailboat",
    "moon mercury earth mars jupiter saturn uranus neptune",
    "fireman astronaut paratrooper",
)
"""Groups of words that could be confused. Objects with words of the same group never share a scene."""


@functools.cache
def _word_groups(name: str) -> frozenset[str]:
    """The words of a name, and the groups of CONFUSABLE_WORDS that contain one of them."""
    words = set(name.replace("-", " ").split())
    return frozenset(words | {line for line in CONFUSABLE_WORDS if words & set(line.split())})


def ambiguous(a: str, b: str) -> bool:
    """Whether two names could be confused: they share a word or a group of CONFUSABLE_WORDS."""
    return not _word_groups(a).isdisjoint(_word_groups(b))


@dataclasses.dataclass(frozen=True)
class Expression:
    """A referring expression: any of a name, a colour, a place (of PLACES) and a size (of SIZES)."""

    name: str | None = None
    colour: str | None = None
    place: str | None = None
    size: str | None = None

    @property
    def kind(self) -> str:
        """The first given attribute, such as "name"; one of KINDS."""
        return next(kind for kind in KINDS if getattr(self, kind))

    def phrase(self, noun: str) -> str:
        """ "the frog on the left"; `noun` is used if no name is given."""
        before, after = (self.place, None) if (self.place or "").endswith("most") else (None, self.place)
        words = ("the", before, self.size, self.colour, self.name or noun, after)
        return " ".join(word for word in words if word)


def matching(expression: Expression, scene: Scene) -> list[int]:
    """The objects that an expression may refer to; more than one if it is ambiguous."""
    matches = [
        i for i, s in enumerate(scene.stamps) if expression.name is None or ambiguous(s.name, expression.name)
    ]
    if expression.colour:
        matches = [i for i in matches if _may_have_colour(expression.colour, scene.stamps[i])]
    if expression.place and len(matches) > 1:
        axis, sign = PLACES[expression.place]
        reach = sign * scene.centres[:, axis]
        matches = [i for i in matches if reach[i] > max(reach[matches]) - MIN_PLACE_MARGIN]
    if expression.size and len(matches) > 1:
        # The object must be larger by visible and by full area, or the expression is ambiguous.
        measures = [
            areas ** SIZES[expression.size] for areas in (scene.areas, np.maximum(1, scene.full_areas))
        ]
        matches = [i for i in matches if any(m[i] * MIN_SIZE_RATIO > max(m[matches]) for m in measures)]
    return matches


def _may_have_colour(colour: str, stamp: Stamp) -> bool:
    share = sum(stamp.shares.get(word, 0) for word in (colour, *NEAR_COLOURS[colour]))
    return stamp.colour == colour or share >= MIN_COLOUR_SHARE or colour in stamp.name.split()


def expressions_for(target: int, scene: Scene, kind: str | None = None) -> list[Expression]:
    """All expressions (of `kind`, if given) that refer only to the target; unseen objects are not named."""
    stamp, several = scene.stamps[target], len(scene.stamps) > 1
    by_kind: dict[str, list[Expression]] = {
        "name": [Expression(name=stamp.name)] if stamp.seen else [],
        "colour": [Expression(colour=stamp.colour)] if stamp.colour else [],
        "place": [
            Expression(place=place) for place in PLACES if several and _is_in_half(target, place, scene)
        ],
        "size": [Expression(size=size) for size in SIZES] if several else [],
    }
    if stamp.seen and sum(other.name == stamp.name for other in scene.stamps) > 1:
        by_kind["name"] = [dataclasses.replace(place, name=stamp.name) for place in by_kind["place"]]
    options = by_kind[kind] if kind else [expression for kind in KINDS for expression in by_kind[kind]]
    return [expression for expression in options if matching(expression, scene) == [target]]


def _is_in_half(target: int, place: str, scene: Scene) -> bool:
    """Whether an object is in the half of a place; superlatives need no half."""
    axis, sign = PLACES[place]
    return place.endswith("most") or bool(sign * (scene.centres[target, axis] - 0.5) > 0)
