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
PLACE_MARGIN, SIZE_RATIO = 0.15, 1.6
"""Least distance (share of the side) and ratio of areas to the next object."""
COLOUR_SHARE = 0.3
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
KIN = (
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
"""Words that could be confused. Objects with different words of a line never occur in one scene."""


@functools.cache
def _families(name: str) -> frozenset[str]:
    """The words of a name, and the lines of KIN that contain one of them."""
    words = set(name.replace("-", " ").split())
    return frozenset(words | {line for line in KIN if words & set(line.split())})


def ambiguous(a: str, b: str) -> bool:
    """Whether two names could be confused: they share a word or a line of KIN."""
    return not _families(a).isdisjoint(_families(b))


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


def matching(said: Expression, scene: Scene) -> list[int]:
    """The objects that an expression may refer to; more than one if it is ambiguous."""
    fits = [i for i, s in enumerate(scene.stamps) if said.name is None or ambiguous(s.name, said.name)]
    if said.colour:
        fits = [i for i in fits if _may_be(said.colour, scene.stamps[i])]
    if said.place and len(fits) > 1:
        axis, sign = PLACES[said.place]
        reach = sign * scene.centres[:, axis]
        fits = [i for i in fits if reach[i] > max(reach[fits]) - PLACE_MARGIN]
    if said.size and len(fits) > 1:
        # The object has to be larger by visible and by whole area, else the expression is ambiguous.
        measures = [areas ** SIZES[said.size] for areas in (scene.areas, np.maximum(1, scene.whole))]
        fits = [i for i in fits if any(m[i] * SIZE_RATIO > max(m[fits]) for m in measures)]
    return fits


def _may_be(colour: str, stamp: Stamp) -> bool:
    share = sum(stamp.shares.get(word, 0) for word in (colour, *NEAR_COLOURS[colour]))
    return stamp.colour == colour or share >= COLOUR_SHARE or colour in stamp.name.split()


def expressions_for(target: int, scene: Scene, kind: str | None = None) -> list[Expression]:
    """All expressions (of `kind`, if given) that refer only to the target; unseen objects are not named."""
    stamp, several = scene.stamps[target], len(scene.stamps) > 1
    said: dict[str, list[Expression]] = {
        "name": [Expression(name=stamp.name)] if stamp.seen else [],
        "colour": [Expression(colour=stamp.colour)] if stamp.colour else [],
        "place": [Expression(place=place) for place in PLACES if several and _is_there(target, place, scene)],
        "size": [Expression(size=size) for size in SIZES] if several else [],
    }
    if stamp.seen and sum(other.name == stamp.name for other in scene.stamps) > 1:
        said["name"] = [dataclasses.replace(place, name=stamp.name) for place in said["place"]]
    options = said[kind] if kind else [expression for kind in KINDS for expression in said[kind]]
    return [expression for expression in options if matching(expression, scene) == [target]]


def _is_there(target: int, place: str, scene: Scene) -> bool:
    """Whether an object is in the half of a place; superlatives need no half."""
    axis, sign = PLACES[place]
    return place.endswith("most") or bool(sign * (scene.centres[target, axis] - 0.5) > 0)
