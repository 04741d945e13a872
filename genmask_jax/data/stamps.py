"""Stamps: scenes composed of photographic cut-outs on photographic grounds, as they are read.

`launch/prepare_data.py stamps` makes the directory. An expression names an object, or its colour, place or
size, and is only used when it singles out exactly one object of the scene. In training only *seen* objects
occur; in val and test every second scene asks for an *unseen* one, never by its bare name, which could not
be known. Grounds are disjoint between the splits.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from genmask_jax.data.examples import GenerateExample, SegmentExample
from genmask_jax.errors import UserError

SPLITS = {"train": 1_000_000, "val": 2048, "test": 4096}
MIN_VISIBLE, MIN_AREA = 0.6, 0.015
"""Least share of the target that is visible, and least share of the picture that it takes."""
PLACES: dict[str, tuple[int, int]] = {
    "on the left": (0, -1),
    "on the right": (0, 1),
    "at the top": (1, -1),
    "at the bottom": (1, 1),
    "leftmost": (0, -1),
    "rightmost": (0, 1),
}
"""Axis (0 across, 1 down) and direction in which the object is furthest; those on -most precede the noun."""
SIZES = {"largest": 1, "large": 1, "smallest": -1, "small": -1}
PLACE_MARGIN, SIZE_RATIO = 0.15, 1.6
"""How much further (share of the side) or larger (by area) than the next object is clear."""
COLOUR_SHARE = 0.3
"""An object with this much of a colour, or of one near it, may be what is meant by the colour."""
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
TRIES = 1000
"""How many scenes are composed for one example before giving up; 1.4 is the mean."""
KINDS = {"name": 0.5, "colour": 0.14, "place": 0.2, "size": 0.16}
"""What is said, and how often; among the rest for unseen objects, which are not called by name."""
STAMP_SIDES, GROUND_SIDES = (192, 80), (640, 280)
"""The sizes that pictures are kept in (long side, pixels), so that composing shrinks them little."""
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
"""Words that may mean one another's thing: two of one line do not meet in a scene under different names."""


@dataclasses.dataclass(frozen=True)
class Stamp:
    """One cut-out: its name, colour word, shares of colours, and picture (RGB times alpha, and alpha)."""

    name: str
    colour: str | None
    shares: dict[str, float]
    seen: bool
    pictures: tuple[Image.Image, ...]


@dataclasses.dataclass(frozen=True)
class Scene:
    """Stamps from back to front, and where they are.

    masks: bool [N, S, S], the visible parts. whole: float [N], how many pixels each has (within the picture)
    with nothing in front of it. layers: rows, columns and pixels (uint8, RGB times alpha, and alpha) of each.
    """

    stamps: tuple[Stamp, ...]
    masks: np.ndarray
    whole: np.ndarray
    layers: tuple[tuple[slice, slice, np.ndarray], ...]

    @functools.cached_property
    def areas(self) -> np.ndarray:
        """Pixels visible of each, float [N], at least 1."""
        return np.maximum(1.0, self.masks.sum((1, 2)))

    @functools.cached_property
    def centres(self) -> np.ndarray:
        """(x, y) of the visible parts, as shares of the side, [N, 2]; (0, 0) of what is wholly hidden."""
        side = self.masks.shape[1]
        axis = (np.arange(side) + 0.5) / side
        moments = np.stack([self.masks.sum(1) @ axis, self.masks.sum(2) @ axis], axis=1)
        return moments / self.areas[:, None]


Ground = tuple[Image.Image, ...]  # one photograph, RGB, in two sizes


@functools.lru_cache(maxsize=2)
def load(path: str) -> tuple[tuple[Stamp, ...], dict[str, list[Ground]]]:
    """Stamps, and grounds by split, of a prepared directory; read once in a process.

    Raises:
        UserError: the directory is not there or was not made by launch/prepare_data.py.
    """
    folder = pathlib.Path(path)
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        stamps = tuple(
            Stamp(e["name"], e["colour"], e["colour_shares"], e["seen"], _sizes(folder / e["file"], "RGBa"))
            for e in index["objects"]
        )
        grounds: dict[str, list[Ground]] = {split: [] for split in SPLITS}
        for entry in index["grounds"]:
            grounds[entry["split"]].append(_sizes(folder / entry["file"], "RGB"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"config.data.path={path} holds no Stamps data set ({type(error).__name__}); make one with "
            f"python launch/prepare_data.py stamps --out=DIR"
        ) from error
    return stamps, grounds


def _sizes(path: pathlib.Path, mode: str) -> tuple[Image.Image, ...]:
    with Image.open(path) as file:
        picture, sizes = file.convert(mode), []
    for side in STAMP_SIDES if mode == "RGBa" else GROUND_SIDES:
        picture.thumbnail((side, side))
        sizes.append(picture.copy())
    return tuple(sizes)


@functools.cache
def _families(name: str) -> frozenset[str]:
    """The words of a name, and the lines of KIN that they are in."""
    words = set(name.replace("-", " ").split())
    return frozenset(words | {line for line in KIN if words & set(line.split())})


def ambiguous(a: str, b: str) -> bool:
    """Whether two names may mean one another's thing: they share a word, or are of one kin."""
    return not _families(a).isdisjoint(_families(b))


def lay_out(rng: np.random.Generator, stamps: list[Stamp], size: int) -> Scene:
    """Stamps at random places and sizes, partly overlapping; later ones are in front."""
    masks, whole, layers = np.zeros((len(stamps), size, size), bool), np.zeros(len(stamps)), []
    for i, stamp in enumerate(stamps):
        side = size * rng.uniform(0.25, 0.6 if len(stamps) < 4 else 0.5)
        picture = _smallest(stamp.pictures, side)
        scale = side / max(picture.size)
        width, height = (max(1, round(n * scale)) for n in picture.size)
        pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        # Up to a tenth of an object may lie beyond the border.
        left, top = (int(rng.integers(-(n // 10), size - n + n // 10 + 1)) for n in (width, height))
        rows, columns = slice(max(0, top), top + height), slice(max(0, left), left + width)
        pixels = pixels[rows.start - top : size - top, columns.start - left : size - left]
        covered = pixels[..., 3] > 127
        masks[:i, rows, columns] &= ~covered
        masks[i, rows, columns] = covered
        whole[i] = covered.sum()
        layers.append((rows, columns, pixels))
    return Scene(tuple(stamps), masks, whole, tuple(layers))


def paint(rng: np.random.Generator, scene: Scene, grounds: list[Ground]) -> np.ndarray:
    """The scene on a random crop of a ground with slightly changed light, uint8 [S, S, 3]."""
    size, ground = scene.masks.shape[1], grounds[rng.integers(len(grounds))]
    share = rng.uniform(0.4, 1.0)
    picture = _smallest(ground, size / share * max(ground[0].size) / min(ground[0].size))
    side = min(picture.size) * share
    left, top = (rng.uniform(0, n - side) for n in picture.size)
    box = (left, top, left + side, top + side)
    image = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=box), np.float32)
    if rng.random() < 0.5:
        image = image[:, ::-1]
    light = rng.uniform(0.85, 1.12, 3), rng.uniform(-12, 12)
    image = np.clip(image * light[0].astype(np.float32) + np.float32(light[1]), 0, 255)
    for rows, columns, pixels in scene.layers:  # colours are multiplied by their alpha already
        image[rows, columns] *= 1 - pixels[..., 3:] * np.float32(1 / 255)
        image[rows, columns] += pixels[..., :3]
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _smallest(pictures: Sequence[Image.Image], side: float) -> Image.Image:
    """Of a picture's sizes, largest first, the smallest with a long side of at least `side`, if any has."""
    return next((picture for picture in reversed(pictures) if max(picture.size) >= side), pictures[0])


@dataclasses.dataclass(frozen=True)
class Expression:
    """What is said: any of a name, a colour, a place (of PLACES) and a size (of SIZES)."""

    name: str | None = None
    colour: str | None = None
    place: str | None = None
    size: str | None = None

    @property
    def kind(self) -> str:
        """The first thing that is said, such as "name"; one of KINDS."""
        return next(kind for kind in KINDS if getattr(self, kind))

    def phrase(self, noun: str) -> str:
        """ "the frog on the left"; `noun` stands for an unsaid name."""
        before, after = (self.place, None) if (self.place or "").endswith("most") else (None, self.place)
        words = ("the", before, self.size, self.colour, self.name or noun, after)
        return " ".join(word for word in words if word)


def matching(said: Expression, scene: Scene) -> list[int]:
    """The objects that an expression may mean: more than one when it leaves doubt."""
    fits = [i for i, s in enumerate(scene.stamps) if said.name is None or ambiguous(s.name, said.name)]
    if said.colour:
        fits = [i for i in fits if _may_be(said.colour, scene.stamps[i])]
    if said.place and len(fits) > 1:
        axis, sign = PLACES[said.place]
        reach = sign * scene.centres[:, axis]
        fits = [i for i in fits if reach[i] > max(reach[fits]) - PLACE_MARGIN]
    if said.size and len(fits) > 1:
        # Larger both in what is visible and in all, else there is doubt.
        measures = [areas ** SIZES[said.size] for areas in (scene.areas, np.maximum(1, scene.whole))]
        fits = [i for i in fits if any(m[i] * SIZE_RATIO > max(m[fits]) for m in measures)]
    return fits


def _may_be(colour: str, stamp: Stamp) -> bool:
    share = sum(stamp.shares.get(word, 0) for word in (colour, *NEAR_COLOURS[colour]))
    return stamp.colour == colour or share >= COLOUR_SHARE or colour in stamp.name.split()


def expressions_for(target: int, scene: Scene, kind: str | None = None) -> list[Expression]:
    """All expressions (of one kind) that mean one object without doubt; an unseen one is not named."""
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
    """Whether an object is in that half of the picture; a superlative is true anywhere."""
    axis, sign = PLACES[place]
    return place.endswith("most") or sign * (scene.centres[target, axis] - 0.5) > 0


@dataclasses.dataclass(frozen=True)
class Question:
    """A scene, the object that is asked for (`said` of `target`), and another one where there is one."""

    scene: Scene
    target: int
    said: Expression
    other: int | None = None
    other_said: Expression | None = None


@functools.lru_cache(maxsize=8)
def pool_of(path: str, split: str) -> tuple[Stamp, ...]:
    """The stamps that may occur in a split: seen ones in train, all in the others."""
    return tuple(stamp for stamp in load(path)[0] if stamp.seen or split != "train")


class _Stamps:
    """Length, files and the random generator of an example."""

    task = 0

    def __init__(self, path: str, split: str, size: int, seed: int = 0, length: int | None = None):
        """Opens a prepared directory.

        Args:
            path: the directory.
            split: train, val or test.
            size: side of the pictures, pixels.
            seed: of all that is drawn.
            length: how many examples; the split's own number (SPLITS) when None.

        Raises:
            UserError: no such split, or no prepared directory.
        """
        if split not in SPLITS:
            raise UserError(f"stamps: no split {split!r}; there are {', '.join(SPLITS)}")
        load(path)  # complains now rather than in a worker process
        self.path, self.split, self.size, self.seed = path, split, size, seed
        self.length = SPLITS[split] if length is None else length

    def __len__(self) -> int:
        return self.length

    def _rng(self, index: int) -> np.random.Generator:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return np.random.default_rng((self.seed, list(SPLITS).index(self.split), self.task, index))

    def _scene(self, rng: np.random.Generator, count: int, first: list[Stamp]) -> Scene:
        """`first` and others, none of whose names could be mistaken for another's, in random order."""
        pool, chosen = pool_of(self.path, self.split), list(first)
        for _ in range(20):
            if len(chosen) >= count:
                break
            stamp = pool[rng.integers(len(pool))]
            if not any(ambiguous(stamp.name, other.name) for other in chosen):
                chosen.append(stamp)
        chosen = [chosen[i] for i in rng.permutation(len(chosen))]
        return lay_out(rng, chosen, self.size)

    def _paint(self, rng: np.random.Generator, scene: Scene) -> np.ndarray:
        return paint(rng, scene, load(self.path)[1][self.split])


class StampsSegment(_Stamps):
    """Scenes of 1-5 objects with an expression and the visible part of the object that it names.

    Groups read "seen name", "unseen place" and so on: whether the target is a seen object, and what is said.
    """

    def question(self, index: int) -> Question:
        """What example `index` asks."""
        return self._question(self._rng(index), index)

    def _question(self, rng: np.random.Generator, index: int) -> Question:
        # What kind of thing is said of whom is drawn first, then scenes until one allows it: the shares hold.
        seen = self.split == "train" or index % 2 == 0
        shares = {kind: share for kind, share in KINDS.items() if seen or kind != "name"}
        kind = rng.choice(list(shares), p=np.array(list(shares.values())) / sum(shares.values()))
        targets = [
            s for s in pool_of(self.path, self.split) if s.seen == seen and (s.colour or kind != "colour")
        ]
        for _ in range(TRIES):
            first = [targets[rng.integers(len(targets))]] if targets else []
            if kind == "name" and rng.random() < 0.2:  # the same twice, told apart by place
                first *= 2
            scene = self._scene(rng, int(rng.integers(2 if kind in ("place", "size") else 1, 6)), first)
            order = [int(i) for i in rng.permutation(len(scene.stamps))]
            asked = ((i, self._say(rng, scene, i, kind)) for i in order if scene.stamps[i].seen == seen)
            target, said = next(((i, said) for i, said in asked if said), (None, None))
            if target is None or said is None:
                continue
            if len(scene.stamps) == 1:
                return Question(scene, target, said)
            others = ((i, self._say(rng, scene, i)) for i in order if i != target)
            other, other_said = next(((i, said) for i, said in others if said), (None, None))
            if other is not None:
                return Question(scene, target, said, other, other_said)
        raise UserError(
            f"config.data.path={self.path}: none of {TRIES} scenes lets one object be told by "
            f"its {kind}; prepare it anew, or use larger pictures than {self.size} pixels"
        )

    def _say(
        self, rng: np.random.Generator, scene: Scene, target: int, kind: str | None = None
    ) -> Expression | None:
        """An expression, of a kind if one is given, for an object that is visible enough."""
        area = scene.areas[target]
        if area < MIN_AREA * self.size**2 or area < MIN_VISIBLE * scene.whole[target]:
            return None
        options = expressions_for(target, scene, kind)
        return options[rng.integers(len(options))] if options else None

    def __getitem__(self, index: int) -> SegmentExample:
        rng = self._rng(index)
        asked = self._question(rng, index)
        masks = asked.scene.masks.astype(np.uint8)
        noun = ("object", "thing")[rng.integers(2)]
        seen = "seen" if asked.scene.stamps[asked.target].seen else "unseen"
        return {
            "image": self._paint(rng, asked.scene),
            "mask": masks[asked.target],
            "text": asked.said.phrase(noun),
            "id": f"{self.split}-{index}",
            "group": f"{seen} {asked.said.kind}",
            "other_text": asked.other_said.phrase(noun) if asked.other_said else "",
            "other_mask": np.zeros_like(masks[0]) if asked.other is None else masks[asked.other],
            "objects_mask": masks.max(0),
        }


class StampsGenerate(_Stamps):
    """One or two objects on a ground, with a prompt: "a photo of a frog", "a frog and an orca"."""

    task = 1

    def __getitem__(self, index: int) -> GenerateExample:
        rng = self._rng(index)
        scene = self._scene(rng, int(rng.integers(1, 3)), [])
        names = [f"{'an' if s.name[0] in 'aeio' else 'a'} {s.name}" for s in scene.stamps]
        text = " and ".join(names) if len(names) > 1 else f"a photo of {names[0]}"
        return {"image": self._paint(rng, scene), "text": text, "id": f"{self.split}-{index}"}
