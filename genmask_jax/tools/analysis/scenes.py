"""The scenes whose latents are analysed: images, each with the mask of one object."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from genmask_jax.data.examples import Source
from genmask_jax.utils.errors import UserError

KINDS = ("mask", "image")
"""The two kinds of pictures of a scene."""
MIN_SCENES = 8


@dataclasses.dataclass(frozen=True)
class Scenes:
    """N different images, each with one mask.

    pictures: the pictures of each kind, uint8 `[N, H, W, 3]`; a mask is black and white.
    """

    pictures: dict[str, UInt8[np.ndarray, "N H W 3"]]

    def __len__(self) -> int:
        return len(self.pictures["mask"])

    def object_share(self, stride: int) -> Float[np.ndarray, "N h w"]:
        """The share of each cell of `stride` x `stride` pixels that the object covers, in [0, 1]."""
        masks = self.pictures["mask"][..., 0] > 0
        count, height, width = masks.shape
        cells = masks.reshape(count, height // stride, stride, width // stride, stride)
        return cells.mean((2, 4))


def read_scenes(source: Source[Any], count: int) -> Scenes:
    """Reads the first `count` different images of a source of `SegmentExample`s, each with its first mask.

    Masks that are empty or cover the whole image are left out.

    Raises:
        UserError: the source has fewer than 8 such images.
    """
    images: dict[bytes, np.ndarray] = {}
    masks = []
    for i in range(len(source)):
        if len(masks) == count:
            break
        example = source[i]
        key = example["image"].tobytes()
        if key not in images and 0 < example["mask"].mean() < 1:
            images[key] = example["image"]
            masks.append(np.repeat(example["mask"][..., None] * np.uint8(255), 3, axis=-1))
    if len(masks) < MIN_SCENES:
        raise UserError(
            f"--data: the split has {len(masks)} images with a mask, but the analysis needs {MIN_SCENES}"
        )
    return Scenes({"mask": np.stack(masks), "image": np.stack(list(images.values()))})
