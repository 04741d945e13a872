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
from typing import Any

import numpy as np
from PIL import Image

from genmask_jax.data.examples import GenerateExample, SegmentExample
from genmask_jax.data.refershapes import PLACES
from genmask_jax.errors import UserError

SPLITS = {"train": 1_000_000, "val": 2048, "test": 4096}
MIN_VISIBLE, MIN_AREA = 0.6, 0.015
"""Least share of the target that is visible, and least share of the picture that it takes."""
PLACE_MARGIN, SIZE_RATIO = 0.12, 1.6
"""How much further (share of the side) or larger (by area) than the next object is clear."""
KEPT_SIDE = 144
KIND_WEIGHTS = {"name": 0.55, "colour": 0.15, "place": 0.15, "size": 0.1, "name+place": 0.2}


@dataclasses.dataclass(frozen=True)
class Stamp:
    """One cut-out: its description and picture, uint8 RGBA."""

    name: str
    colour: str | None
    seen: bool
    picture: Image.Image


@dataclasses.dataclass(frozen=True)
class Scene:
    """A picture uint8 [S, S, 3], the stamps on it from back to front, and what is visible of each.

    masks: bool [N, S, S], the visible parts. whole: how many pixels each has with nothing in front of it.
    """

    image: np.ndarray
    stamps: tuple[Stamp, ...]
    masks: np.ndarray
    whole: tuple[int, ...]

    @property
    def centres(self) -> np.ndarray:
        """(x, y) of the visible parts, as shares of the side, [N, 2]."""
        side = self.masks.shape[1]
        axes = np.arange(side) + 0.5
        areas = np.maximum(1, self.masks.sum((1, 2)))
        x, y = (self.masks.sum(1) * axes).sum(1), (self.masks.sum(2) * axes).sum(1)
        return np.stack([x, y], axis=1) / areas[:, None] / side


@functools.lru_cache(maxsize=2)
def load(path: str) -> tuple[tuple[Stamp, ...], dict[str, list[Image.Image]]]:
    """Stamps, and grounds by split, of a prepared directory; read once in a process.

    Raises:
        UserError: the directory is not there or was not made by launch/prepare_data.py.
    """
    index = pathlib.Path(path) / "index.json"
    if not index.exists():
        raise UserError(
            f"config.data.path={path}: no Stamps here; run python launch/prepare_data.py stamps --out={path}"
        )
    entries = json.loads(index.read_text())
    stamps, grounds = [], {split: [] for split in SPLITS}
    for entry in entries["objects"]:
        picture = Image.open(pathlib.Path(path) / entry["file"]).convert("RGBA")
        picture.thumbnail((KEPT_SIDE, KEPT_SIDE))
        stamps.append(Stamp(entry["name"], entry["colour"], entry["seen"], picture))
    for entry in entries["grounds"]:
        grounds[entry["split"]].append(Image.open(pathlib.Path(path) / entry["file"]).convert("RGB"))
    return tuple(stamps), grounds


def ambiguous(a: str, b: str) -> bool:
    """Whether two different names may mean one another's thing: they share a word."""
    return bool(set(a.replace("-", " ").split()) & set(b.replace("-", " ").split()))


def compose(rng: np.random.Generator, stamps: list[Stamp], grounds: list[Image.Image], size: int) -> Scene:
    """Stamps at random places and sizes, partly overlapping, on a random crop of a ground."""
    image = _crop_ground(rng, grounds[rng.integers(len(grounds))], size)
    masks, whole = np.zeros((len(stamps), size, size), bool), []
    for i, stamp in enumerate(stamps):
        share = rng.uniform(0.25, 0.62 if len(stamps) < 3 else 0.48)
        width, height = stamp.picture.size
        scale = share * size / max(width, height)
        shape = max(1, round(width * scale)), max(1, round(height * scale))
        picture = stamp.picture.resize(shape, Image.Resampling.BILINEAR, reducing_gap=2.0)
        pixels = np.asarray(picture, np.float32)
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        left, top = (int(rng.integers(-n // 10, size - n + n // 10 + 1)) for n in shape)
        rows = slice(max(0, top), min(size, top + shape[1]))
        columns = slice(max(0, left), min(size, left + shape[0]))
        pixels = pixels[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        alpha = pixels[..., 3:] / 255
        image[rows, columns] += alpha * (pixels[..., :3] - image[rows, columns])
        covered = alpha[..., 0] > 0.5
        masks[:i, rows, columns] &= ~covered
        masks[i, rows, columns] = covered
        whole.append(int(covered.sum()))
    return Scene(np.clip(image + 0.5, 0, 255).astype(np.uint8), tuple(stamps), masks, tuple(whole))


def _crop_ground(rng: np.random.Generator, ground: Image.Image, size: int) -> np.ndarray:
    side = int(min(ground.size) * rng.uniform(0.4, 1.0))
    left, top = (int(rng.integers(0, n - side + 1)) for n in ground.size)
    box = (left, top, left + side, top + side)
    crop = ground.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    pixels = np.asarray(crop, np.float32)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return pixels * rng.uniform(0.75, 1.15, 3).astype(np.float32) + rng.uniform(-12, 12)


@dataclasses.dataclass(frozen=True)
class Expression:
    """What is said: any of a name, a colour, a place (of PLACES) and a size ("largest", "smallest")."""

    name: str | None = None
    colour: str | None = None
    place: str | None = None
    size: str | None = None

    @property
    def kind(self) -> str:
        """What is said, such as "name+place"."""
        return "+".join(key for key, value in dataclasses.asdict(self).items() if value)

    def phrase(self, noun: str) -> str:
        """ "the frog on the left"; `noun` stands for an unsaid name."""
        words = ("the", self.size, self.colour, self.name or noun, self.place)
        return " ".join(word for word in words if word)


def matching(expression: Expression, scene: Scene) -> list[int]:
    """The objects that an expression may mean: more than one when it leaves doubt."""
    fits = [
        i
        for i, stamp in enumerate(scene.stamps)
        if expression.name is None or stamp.name == expression.name or ambiguous(stamp.name, expression.name)
    ]
    if expression.colour:
        fits = [i for i in fits if scene.stamps[i].colour == expression.colour]
    if expression.place and len(fits) > 1:
        axis, sign = PLACES[expression.place]
        reach = sign * scene.centres[:, axis]
        fits = [i for i in fits if reach[i] > max(reach[fits]) - PLACE_MARGIN]
    if expression.size and len(fits) > 1:
        areas = scene.masks.sum((1, 2)).astype(float)
        areas = areas if expression.size == "largest" else 1 / np.maximum(areas, 1)
        fits = [i for i in fits if areas[i] * SIZE_RATIO > max(areas[fits])]
    return fits


def expressions_for(target: int, scene: Scene) -> list[Expression]:
    """All expressions that mean one object without doubt. Unseen objects are not called by name."""
    stamp = scene.stamps[target]
    said = [Expression(colour=stamp.colour)] if stamp.colour else []
    if len(scene.stamps) > 1:
        said += [Expression(place=place) for place in PLACES]
        said += [Expression(size=size) for size in ("largest", "smallest")]
    if stamp.seen:
        said += [Expression(name=stamp.name)]
        if sum(other.name == stamp.name for other in scene.stamps) > 1:
            said += [Expression(name=stamp.name, place=place) for place in PLACES]
    return [expression for expression in said if matching(expression, scene) == [target]]


class _Stamps:
    """Length, files and the random generator of an example."""

    task = 0

    def __init__(self, path: str, split: str, size: int, seed: int = 0):
        """`path`: the prepared directory; `split`: train, val or test; `size`: pixels. Raises UserError."""
        if split not in SPLITS:
            raise UserError(f"stamps: no split {split!r}; there are {', '.join(SPLITS)}")
        load(path)  # complains now rather than in a worker process
        self.path, self.split, self.size, self.seed = path, split, size, seed

    def __len__(self) -> int:
        return SPLITS[self.split]

    def _rng(self, index: int) -> np.random.Generator:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return np.random.default_rng((self.seed, list(SPLITS).index(self.split), self.task, index))

    def _choose(self, rng: np.random.Generator, count: int, first: list[Stamp]) -> list[Stamp]:
        """`first` and others, none of whose names could be mistaken for another's, in random order."""
        stamps, _ = load(self.path)
        pool = [s for s in stamps if s.seen] if self.split == "train" else stamps
        chosen = list(first)
        for _ in range(20):
            if len(chosen) >= count:
                break
            stamp = pool[rng.integers(len(pool))]
            if not any(ambiguous(stamp.name, other.name) for other in chosen):
                chosen.append(stamp)
        return [chosen[i] for i in rng.permutation(len(chosen))]


class StampsSegment(_Stamps):
    """Scenes of 1-5 objects with an expression and the visible part of the object that it names.

    Groups read "seen name", "unseen place" and so on.
    """

    def __getitem__(self, index: int) -> SegmentExample:
        rng = self._rng(index)
        stamps, grounds = load(self.path)
        wanted = self.split == "train" or index % 2 == 0
        targets = [stamp for stamp in stamps if stamp.seen == wanted]
        while True:
            first = [targets[rng.integers(len(targets))]]
            count = int(rng.integers(1, 6))
            if count > 1 and rng.random() < 0.15:  # twice the same, told apart by place
                first *= 2
            scene = compose(rng, self._choose(rng, count, first), grounds[self.split], self.size)
            target = scene.stamps.index(first[0])
            said = self._say(rng, scene, target)
            if said is None:
                continue
            others = [i for i in rng.permutation(len(scene.stamps)) if i != target]
            answers = ((i, self._say(rng, scene, int(i))) for i in others)
            other, other_said = next(((i, e) for i, e in answers if e is not None), (None, None))
            return self._example(rng, index, scene, (target, said), (other, other_said))

    def _say(self, rng: np.random.Generator, scene: Scene, target: int) -> Expression | None:
        visible = int(scene.masks[target].sum())
        if visible < MIN_AREA * self.size**2 or visible < MIN_VISIBLE * scene.whole[target]:
            return None
        options = expressions_for(target, scene)
        if not options:
            return None
        kinds = sorted({option.kind for option in options})
        weights = np.array([KIND_WEIGHTS[kind] for kind in kinds])
        kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
        options = [option for option in options if option.kind == kind]
        return options[rng.integers(len(options))]

    def _example(
        self, rng: np.random.Generator, index: int, scene: Scene, target: tuple[int, Expression], other: Any
    ) -> SegmentExample:
        noun = ("object", "thing")[rng.integers(2)]
        seen = "seen" if scene.stamps[target[0]].seen else "unseen"
        empty = np.zeros((self.size, self.size), np.uint8)
        return {
            "image": scene.image,
            "mask": scene.masks[target[0]].astype(np.uint8),
            "text": target[1].phrase(noun),
            "id": f"{self.split}-{index}",
            "group": f"{seen} {target[1].kind}",
            "other_text": other[1].phrase(noun) if other[1] else "",
            "other_mask": scene.masks[other[0]].astype(np.uint8) if other[1] else empty,
            "objects_mask": scene.masks.any(0).astype(np.uint8),
        }


class StampsGenerate(_Stamps):
    """One or two objects on a ground, with a prompt such as "a photo of a frog and a fire truck"."""

    task = 1

    def __getitem__(self, index: int) -> GenerateExample:
        rng = self._rng(index)
        _, grounds = load(self.path)
        scene = compose(rng, self._choose(rng, int(rng.integers(1, 3)), []), grounds[self.split], self.size)
        names = [f"{'an' if s.name[0] in 'aeiou' else 'a'} {s.name}" for s in scene.stamps]
        return {
            "image": scene.image,
            "text": f"a photo of {' and '.join(names)}",
            "id": f"{self.split}-{index}",
        }
