"""What a data source yields: plain dictionaries of NumPy arrays and strings, one example each.

A source is random-access and deterministic: `source[i]` is the same example on every machine and in every
run, so that Grain can shuffle, shard and resume by index alone.
"""

from collections.abc import Sequence
from typing import Protocol, TypedDict

import numpy as np


class SegmentExample(TypedDict, total=False):
    """An image, an expression that refers to something in it, and the mask of the referred object.

    image:        uint8 [H, W, 3], RGB.
    mask:         uint8 [H, W], 1 where the *visible* part of the referred object is, else 0. Masks to be
                  scored may differ in size from `image`, and are 255 at ignored pixels.
    text:         the expression.
    id:           unique within the split, stable between runs.

    Examples to be scored (see data/sources.py) also have the fields below; those of a prepared dataset also
    have `asked`, the expression as it was read (`records.Asked`):

    group:        the kind of question; scores are also reported per group.
    other_text:   an expression that refers to another object of the same image; "" if there is none.
    other_mask:   uint8 [H, W], the mask of that other object.
    objects_mask: uint8 [H, W], the union of all objects in the image.
    """

    image: np.ndarray
    mask: np.ndarray
    text: str
    id: str
    group: str
    other_text: str
    other_mask: np.ndarray
    objects_mask: np.ndarray


class GenerateExample(TypedDict):
    """An image (uint8 [H, W, 3], RGB) and a prompt that describes it."""

    image: np.ndarray
    text: str
    id: str


class Source(Protocol):
    """Random access to the examples of one task and split."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> SegmentExample | GenerateExample: ...


class Mixture:
    """Several sources. Indexing concatenates them; training samples them by weight."""

    def __init__(self, parts: Sequence[Source], weights: Sequence[float]):
        """`weights`: the relative share of examples that training draws from each part; positive."""
        self.parts, self.weights = list(parts), list(weights)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> SegmentExample | GenerateExample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        ends = np.cumsum([len(part) for part in self.parts])
        part = int(np.searchsorted(ends, index, side="right"))
        return self.parts[part][index - int(ends[part]) + len(self.parts[part])]
