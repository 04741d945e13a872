"""ReferShapes: the built-in dataset of generated scenes. It needs no download and no files.

A scene has a few shapes on a background, in one of two styles (`styles.py`). A referring expression names
some of an object's size, colour, kind and place. It is used only if it refers to exactly one object: either
no other object has the attributes, or the object's place is extreme, by a clear margin, among those that have
them. Splits differ in their random seeds. Every scene also has an expression for an absent object.
"""

from typing import NamedTuple

import numpy as np

from genmask_jax.data.examples import AbsentExample, FullSizeExample, GenerateExample
from genmask_jax.data.refershapes.scene import Scene, draw_scene
from genmask_jax.data.refershapes.styles import MUTED, Style
from genmask_jax.data.refershapes.words import Expression, absent_expression, draw_expression
from genmask_jax.utils.errors import UserError

MIN_VISIBLE = 0.85
WITHOUT_COLOUR_SHARE = {"train": 0.5}
"""Share of expressions that avoid the colour, by split. The colour alone identifies most objects, so models
learn it first and seldom need the kind of shape."""
SPLITS = {"train": 1_000_000, "val": 4096, "test": 4096}
ABSENT_TASK = 2
"""Replaces `task` in the seeds of expressions for absent objects."""


class Composition(NamedTuple):
    """A scene, the indices of two of its shapes, their expressions, and the group of the first expression."""

    scene: Scene
    target: int
    other: int
    text: str
    other_text: str
    group: str


class _Shapes:
    """Shared by both tasks: the length, the index check and the random generator of each example."""

    task = 0

    def __init__(self, split: str, size: int, seed: int = 0, style: Style = MUTED):
        """`split`: train, val or test; `size`: side of the images, pixels. Raises UserError."""
        if split not in SPLITS:
            raise UserError(f"refershapes: no split {split!r}; splits: {', '.join(SPLITS)}")
        self.split, self.size, self.seed, self.style = split, size, seed, style

    def __len__(self) -> int:
        return SPLITS[self.split]

    def _rng(self, index: int) -> np.random.Generator:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return np.random.default_rng((self.seed, list(SPLITS).index(self.split), self.task, index))


class ReferShapesSegment(_Shapes):
    """Scenes of 2-5 shapes with an expression and the mask of its shape."""

    def compose(self, index: int) -> Composition:
        """The scene of an example, with two of its shapes and an expression for each."""
        rng = self._rng(index)
        while True:
            scene = draw_scene(rng, int(rng.integers(2, 6)), self.size, self.style, purity=1.0)
            if len(scene.shapes) < 2 or scene.visible.min() < MIN_VISIBLE:
                continue
            target, other = (int(i) for i in rng.permutation(len(scene.shapes))[:2])
            without_colour = WITHOUT_COLOUR_SHARE.get(self.split, 0.0)
            expressions = [
                draw_expression(rng, i, scene.shapes, self.size, self.style, without_colour)
                for i in (target, other)
            ]
            if expressions[0] is None or expressions[1] is None:
                continue
            noun = ("object", "thing")[rng.integers(2)]
            texts = (expressions[0].phrase(noun), expressions[1].phrase(noun))
            return Composition(scene, target, other, *texts, expressions[0].group)

    def full_size(self, index: int) -> FullSizeExample:
        """An example before augmentation; `absent` has an expression that refers to nothing in it."""
        composition = self.compose(index)
        absent = self._absent(composition.scene, np.random.default_rng((index, self.seed)))
        return {
            "image": composition.scene.image,
            "mask": composition.scene.masks[composition.target].astype(np.uint8),
            "text": composition.text,
            "id": f"{self.split}-{index}",
            "is_class": False,
            "absent": (absent.phrase(),),
            "classless": (),
        }

    def _absent(self, scene: Scene, rng: np.random.Generator) -> Expression:
        return absent_expression({(shape.colour, shape.kind) for shape in scene.shapes}, self.style, rng)

    def __getitem__(self, index: int) -> AbsentExample:
        composition = self.compose(index)
        masks = composition.scene.masks.astype(np.uint8)
        seeds = (self.seed, list(SPLITS).index(self.split), ABSENT_TASK, index)
        absent = self._absent(composition.scene, np.random.default_rng(seeds))
        return {
            "image": composition.scene.image,
            "mask": masks[composition.target],
            "text": composition.text,
            "id": f"{self.split}-{index}",
            "group": composition.group,
            "other_text": composition.other_text,
            "other_mask": masks[composition.other],
            "objects_mask": masks.max(0),
            "absent_text": absent.phrase(),
            "absent_group": absent.group,
        }


class ReferShapesGenerate(_Shapes):
    """One shape with a prompt such as "a red star", or two or three shapes with a prompt that lists them."""

    task = 1

    def __getitem__(self, index: int) -> GenerateExample:
        rng = self._rng(index)
        count = 1 if rng.random() < 0.5 else int(rng.integers(2, 4))
        scene = draw_scene(rng, count, self.size, self.style)
        names = []
        for shape in scene.shapes:
            size = f"{shape.size} " if rng.random() < 0.5 and shape.size else ""
            article = "an" if not size and shape.colour == "orange" else "a"
            names.append(f"{article} {size}{shape.colour} {shape.kind}")
        text = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        return {"image": scene.image, "text": text, "id": f"{self.split}-{index}"}
