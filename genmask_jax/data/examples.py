"""The examples of data sources: dictionaries of NumPy arrays and strings.

A source is random-access and deterministic: `source[i]` is the same example on every machine and in every
run, so that Grain can shuffle, shard and resume by index.
"""

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypedDict, TypeVar, runtime_checkable

import numpy as np


class SegmentExample(TypedDict):
    """An image, an expression that refers to something in it, and its mask.

    image: uint8 [H, W, 3], RGB.
    mask: uint8 [H, W], 1 at the visible part of the object, else 0.
    text: the expression.
    id: unique within the split, stable between runs.
    """

    image: np.ndarray
    mask: np.ndarray
    text: str
    id: str


class FullSizeExample(SegmentExample):
    """An example at the image's own size, before augmentation (`data/augment.py`).

    mask: uint8 [H, W], 1 at the object, 255 at ignored pixels, else 0.
    text: the expression as annotated, without a template.
    is_class: whether the text is the name of a class.
    absent: expressions that refer to nothing in the image, such as the other classes of the dataset.
    classless: the split's images without any class; () for a dataset without classes.
    """

    is_class: bool
    absent: tuple[str, ...]
    classless: "ClasslessImages | tuple[()]"


class ClasslessImages(Protocol):
    """Images without any class, as `FullSizeExample`s with an empty mask and an empty text.

    share: their share of the annotated images of the split.
    """

    share: float

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> FullSizeExample: ...


class ScoredExample(SegmentExample):
    """An example for evaluation. `mask` may have another size than `image`, and is 255 at ignored pixels.

    group: the kind of expression; scores are also reported per group.
    other_text: an expression for another object of the image; "" if there is none.
    other_mask: uint8 [H, W], the mask of the other object.
    objects_mask: uint8 [H, W], the union of all objects in the image.
    """

    group: str
    other_text: str
    other_mask: np.ndarray
    objects_mask: np.ndarray


class AbsentExample(ScoredExample):
    """A `ScoredExample` with an expression for an absent object.

    absent_text: the expression.
    absent_group: the attributes that it names: "kind", "colour" or "colour+kind".
    """

    absent_text: str
    absent_group: str


NO_CLASS, IGNORED_PIXEL = -1, -2
"""Labels of pixels without a class and of ignored pixels."""


class LabelledExample(TypedDict):
    """An image and the class of each of its pixels.

    image: uint8 [H, W, 3], at the model's size.
    full_image: uint8 [H', W', 3], at its own size.
    labels: int32 [H', W'], the index of the class, NO_CLASS or IGNORED_PIXEL.
    """

    image: np.ndarray
    full_image: np.ndarray
    labels: np.ndarray


class GenerateExample(TypedDict):
    """An image and its prompt.

    image: uint8 [H, W, 3], RGB.
    text: the prompt.
    id: unique within the split, stable between runs.
    """

    image: np.ndarray
    text: str
    id: str


E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)


@runtime_checkable
class Source(Protocol[E_co]):
    """Random access to the examples of one task and split."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> E_co: ...


@runtime_checkable
class OwnImages(Protocol):
    """A source that also has images at their own resolution."""

    def image(self, index: int) -> np.ndarray:
        """The image of an example, uint8 [H, W, 3]."""
        ...


class FullSizeSource(Generic[E]):
    """The examples of a source at the images' own size (`FullSizeExample`).

    Generated scenes have only the model's size.
    """

    def __init__(self, source: Source[E]):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        full_size = getattr(self.source, "full_size", None)
        if full_size:
            return full_size(index)
        example: Any = self.source[index]
        return {"is_class": False, "absent": (), "classless": (), **example}


class Mixture(Generic[E]):
    """Several sources. Indexing concatenates them; training samples them by weight."""

    def __init__(self, parts: Sequence[Source[E]], weights: Sequence[float]):
        """`weights`: relative shares of the parts in training; positive."""
        self.parts, self.weights = list(parts), list(weights)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> E:
        if not 0 <= index < len(self):
            raise IndexError(index)
        ends = np.cumsum([len(part) for part in self.parts])
        part = int(np.searchsorted(ends, index, side="right"))
        return self.parts[part][index - int(ends[part]) + len(self.parts[part])]


class Part(Generic[E]):
    """A slice of a source: `count` examples from `start` on."""

    def __init__(self, source: Source[E], start: int, count: int):
        self.source, self.start, self.count = source, start, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> E:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.source[self.start + index]
