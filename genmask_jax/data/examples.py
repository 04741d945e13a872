"""What a data source yields: plain dictionaries of NumPy arrays and strings, one example each.

A source is random-access and deterministic: `source[i]` is the same example on every machine and in every
run, so that Grain can shuffle, shard and resume by index alone.
"""

from collections.abc import Sequence
from typing import Protocol, TypedDict

import numpy as np


class SegmentExample(TypedDict, total=False):
    """An image, an expression that singles something out in it, and its mask.

    image:        uint8 [H, W, 3], RGB.
    mask:         uint8 [H, W], 1 where the *visible* part of the named object is, else 0. To be scored, masks
                  may be of another size than `image`, and 255 where a pixel does not count.
    text:         the expression.
    id:           unique within the split, stable between runs.

    Where it is to be scored (data/sources.py), also what follows; and of a prepared dataset `asked`, the
    expression as it was read:

    group:        what kind of question this is; scores are reported per group as well.
    other_text:   an expression that names another object of the same image; "" where there is none.
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
    """Sources one after the other, to look at; in training they are drawn from by their weights."""

    def __init__(self, parts: Sequence[Source], weights: Sequence[float]):
        """`weights`: of each part's examples in a long run, relative to one another; positive."""
        self.parts, self.weights = list(parts), list(weights)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> SegmentExample | GenerateExample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        ends = np.cumsum([len(part) for part in self.parts])
        part = int(np.searchsorted(ends, index, side="right"))
        return self.parts[part][index - int(ends[part]) + len(self.parts[part])]
