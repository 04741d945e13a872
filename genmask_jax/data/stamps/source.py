"""Stamps: scenes of photographic cut-outs on photographic backgrounds, composed on the fly.

`launch/prepare_data.py stamps` makes the directory. An expression names an object's name, colour, place or
size, and is used only if it refers to exactly one object of the scene. Training has only *seen* objects. In
val and test, every second scene asks for an *unseen* object, but not by its name, which the model cannot
know. Backgrounds of the splits are disjoint.
"""

import dataclasses
import functools

import numpy as np

from genmask_jax.data.examples import GenerateExample, ScoredExample
from genmask_jax.data.stamps.scene import SPLITS, Scene, Stamp, compose, load, place_stamps
from genmask_jax.data.stamps.words import KINDS, Expression, ambiguous, expressions_for
from genmask_jax.utils.errors import UserError

MIN_VISIBLE, MIN_AREA = 0.6, 0.015
"""Smallest visible share of the target, and smallest share of the image that it covers."""
MAX_TRIES = 1000
"""Largest number of scenes that are composed for an example; the mean is 1.4."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A scene, a target and its expression, and another object and its expression or None."""

    scene: Scene
    target: int
    expression: Expression
    other: int | None = None
    other_expression: Expression | None = None


@functools.lru_cache(maxsize=8)
def stamps_of(path: str, split: str) -> tuple[Stamp, ...]:
    """The stamps of a split: only seen ones in train, all in the others."""
    return tuple(stamp for stamp in load(path)[0] if stamp.seen or split != "train")


class _Stamps:
    """Shared by both tasks: the length, the files and the random generator of each example."""

    task = 0

    def __init__(self, path: str, split: str, size: int, seed: int = 0, length: int | None = None):
        """Opens a prepared directory.

        Args:
            path: the directory.
            split: train, val or test.
            size: side of the images, pixels.
            seed: seed of all random choices.
            length: number of examples; the split's default (SPLITS) if None.

        Raises:
            UserError: the split or the prepared directory does not exist.
        """
        if split not in SPLITS:
            raise UserError(f"stamps: no split {split!r}; splits: {', '.join(SPLITS)}")
        load(path)  # raises here rather than in a worker process
        self.path, self.split, self.size, self.seed = path, split, size, seed
        self.length = SPLITS[split] if length is None else length

    def __len__(self) -> int:
        return self.length

    def _rng(self, index: int) -> np.random.Generator:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return np.random.default_rng((self.seed, list(SPLITS).index(self.split), self.task, index))

    def _scene(self, rng: np.random.Generator, count: int, first: list[Stamp]) -> Scene:
        """A scene of `first` and other objects with distinguishable names, in random order."""
        pool, chosen = stamps_of(self.path, self.split), list(first)
        for _ in range(20):
            if len(chosen) >= count:
                break
            stamp = pool[rng.integers(len(pool))]
            if not any(ambiguous(stamp.name, other.name) for other in chosen):
                chosen.append(stamp)
        chosen = [chosen[i] for i in rng.permutation(len(chosen))]
        return place_stamps(rng, chosen, self.size)

    def _compose(self, rng: np.random.Generator, scene: Scene) -> np.ndarray:
        return compose(rng, scene, load(self.path)[1][self.split])


class StampsSegment(_Stamps):
    """Scenes of 1-5 objects with an expression and the visible part of its object.

    Groups are "seen name", "unseen place" and so on: whether the target is seen, and the kind of expression.
    """

    def question(self, index: int) -> Question:
        """The scene, target and expressions of example `index`."""
        return self._question(self._rng(index), index)

    def _question(self, rng: np.random.Generator, index: int) -> Question:
        # Draws the kind of expression first, and then scenes until one allows it, so that shares are exact.
        seen = self.split == "train" or index % 2 == 0
        shares = {kind: share for kind, share in KINDS.items() if seen or kind != "name"}
        kind = rng.choice(list(shares), p=np.array(list(shares.values())) / sum(shares.values()))
        targets = [
            s for s in stamps_of(self.path, self.split) if s.seen == seen and (s.colour or kind != "colour")
        ]
        for _ in range(MAX_TRIES):
            first = [targets[rng.integers(len(targets))]] if targets else []
            if kind == "name" and rng.random() < 0.2:  # the same object twice, distinguished by place
                first *= 2
            scene = self._scene(rng, int(rng.integers(2 if kind in ("place", "size") else 1, 6)), first)
            order = [int(i) for i in rng.permutation(len(scene.stamps))]
            candidates = (
                (i, self._express(rng, scene, i, kind)) for i in order if scene.stamps[i].seen == seen
            )
            target, expression = next(
                ((i, expression) for i, expression in candidates if expression), (None, None)
            )
            if target is None or expression is None:
                continue
            if len(scene.stamps) == 1:
                return Question(scene, target, expression)
            others = ((i, self._express(rng, scene, i)) for i in order if i != target)
            other, other_expression = next(
                ((i, expression) for i, expression in others if expression), (None, None)
            )
            if other is not None:
                return Question(scene, target, expression, other, other_expression)
        raise UserError(
            f"config.data.path={self.path}: in {MAX_TRIES} scenes, no object is identified by its {kind}; "
            f"prepare the dataset again, or use images larger than {self.size} pixels"
        )

    def _express(
        self, rng: np.random.Generator, scene: Scene, target: int, kind: str | None = None
    ) -> Expression | None:
        """An expression (of `kind`, if given) for an object; None if too little of it is visible."""
        area = scene.areas[target]
        if area < MIN_AREA * self.size**2 or area < MIN_VISIBLE * scene.full_areas[target]:
            return None
        options = expressions_for(target, scene, kind)
        return options[rng.integers(len(options))] if options else None

    def __getitem__(self, index: int) -> ScoredExample:
        rng = self._rng(index)
        question = self._question(rng, index)
        masks = question.scene.masks.astype(np.uint8)
        noun = ("object", "thing")[rng.integers(2)]
        seen = "seen" if question.scene.stamps[question.target].seen else "unseen"
        return {
            "image": self._compose(rng, question.scene),
            "mask": masks[question.target],
            "text": question.expression.phrase(noun),
            "id": f"{self.split}-{index}",
            "group": f"{seen} {question.expression.kind}",
            "other_text": question.other_expression.phrase(noun) if question.other_expression else "",
            "other_mask": np.zeros_like(masks[0]) if question.other is None else masks[question.other],
            "objects_mask": masks.max(0),
        }


class StampsGenerate(_Stamps):
    """One or two objects on a background, with a prompt: "a photo of a frog", "a frog and an orca"."""

    task = 1

    def __getitem__(self, index: int) -> GenerateExample:
        rng = self._rng(index)
        scene = self._scene(rng, int(rng.integers(1, 3)), [])
        names = [f"{'an' if s.name[0] in 'aeio' else 'a'} {s.name}" for s in scene.stamps]
        text = " and ".join(names) if len(names) > 1 else f"a photo of {names[0]}"
        return {"image": self._compose(rng, scene), "text": text, "id": f"{self.split}-{index}"}
