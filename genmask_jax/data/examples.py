"""What a data source yields: plain dictionaries of NumPy arrays and strings, one example each.

A source is random-access and deterministic: `source[i]` is the same example on every machine and in every
run, so that Grain can shuffle, shard and resume by index alone.
"""

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypedDict, TypeVar, runtime_checkable

import numpy as np


class SegmentExample(TypedDict):
    """An image, an expression that refers to something in it, and its mask.

    image: uint8 [H, W, 3], RGB.
    mask: uint8 [H, W], 1 where the *visible* part of the referred object is, else 0.
    text: the expression.
    id: unique within the split, stable between runs.
    """

    image: np.ndarray
    mask: np.ndarray
    text: str
    id: str


class WholeExample(SegmentExample):
    """An example at its image's own size, before it is varied (`data/augment.py`).

    mask: uint8 [H, W], 1 where the object is, 255 at ignored pixels.
    text: as annotated, without a template.
    is_class: whether the text is the name of a class.
    absent: names of the dataset's classes that the image does not show.
    nothing: the split's images that show no class of the dataset; () without classes.
    """

    is_class: bool
    absent: tuple[str, ...]
    nothing: "Nothing | tuple[()]"


class Nothing(Protocol):
    """Images that show no class, as `WholeExample`s with an empty mask and without a text.

    share: how many they are among all annotated images of the split.
    """

    share: float

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> WholeExample: ...


class ScoredExample(SegmentExample):
    """An example for evaluation. `mask` may have another size than `image`, and 255 at ignored pixels.

    group: the kind of expression; scores are reported per group as well.
    other_text: an expression that refers to another object of the same image; "" where there is none.
    other_mask: uint8 [H, W], the mask of that other object.
    objects_mask: uint8 [H, W], the union of all objects in the image.
    """

    group: str
    other_text: str
    other_mask: np.ndarray
    objects_mask: np.ndarray


class AbsentExample(ScoredExample):
    """A `ScoredExample` with an expression for an object that the image does not contain.

    absent_text: the expression.
    absent_group: what it gives of that object: "kind", "colour" or "colour+kind".
    """

    absent_text: str
    absent_group: str


NO_CLASS, IGNORED_PIXEL = -1, -2
"""Labels of pixels that belong to no class, and of pixels that do not count."""


class LabelledExample(TypedDict):
    """An image (uint8 [H, W, 3]) and the class of each of its pixels.

    whole: the image at its own size, uint8 [H', W', 3].
    labels: int32 [H', W'], the number of the class, NO_CLASS or IGNORED_PIXEL.
    """

    image: np.ndarray
    whole: np.ndarray
    labels: np.ndarray


class GenerateExample(TypedDict):
    """An image (uint8 [H, W, 3], RGB) and a prompt that describes it."""

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
    """A source that also has its images at their own resolution, uint8 [H, W, 3]."""

    def image(self, index: int) -> np.ndarray: ...


class Whole(Generic[E]):
    """The examples of a source as they are before they are brought to the model's size.

    Composed scenes have no other size; they are whole.
    """

    def __init__(self, source: Source[E]):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        whole = getattr(self.source, "whole", None)
        if whole:
            return whole(index)
        example: Any = self.source[index]
        return {"is_class": False, "absent": (), "nothing": (), **example}


class Mixture(Generic[E]):
    """Several sources. Indexing concatenates them; training samples them by weight."""

    def __init__(self, parts: Sequence[Source[E]], weights: Sequence[float]):
        """`weights`: the relative share of examples that training draws from each part; positive."""
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
    """`count` consecutive examples of a source, from `start` on."""

    def __init__(self, source: Source[E], start: int, count: int):
        self.source, self.start, self.count = source, start, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> E:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.source[self.start + index]
