"""What a data source yields: plain dictionaries of NumPy arrays and strings, one example each.

A source is random-access and deterministic: `source[i]` is the same example on every machine and in every
run, so that Grain can shuffle, shard and resume by index alone.
"""

from typing import Protocol, TypedDict

import numpy as np


class SegmentExample(TypedDict):
    """A picture, an expression that singles out one thing in it, and that thing's mask.

    image:        uint8 [H, W, 3], RGB.
    mask:         uint8 [H, W], 1 where the *visible* part of the named object is, else 0.
    text:         the expression.
    id:           unique within the split, stable between runs.
    group:        what kind of question this is; scores are reported per group as well.
    other_text:   an expression that names another object of the same picture.
    other_mask:   uint8 [H, W], the mask of that other object.
    objects_mask: uint8 [H, W], the union of all objects in the picture.
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
    """A picture (uint8 [H, W, 3], RGB) and a prompt that describes it."""

    image: np.ndarray
    text: str
    id: str


class Source(Protocol):
    """Random access to the examples of one task and split."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> SegmentExample | GenerateExample: ...
