"""Prepared datasets as sources of examples: images stretched to the model's square, and their masks.

For training, masks are stretched with the image; for scoring, they keep their own resolution.
"""

from typing import Any

import numpy as np
from PIL import Image

from genmask_jax.data.examples import GenerateExample, SegmentExample
from genmask_jax.data.masks import IGNORE
from genmask_jax.data.prepared import records
from genmask_jax.images import to_model_size


class PreparedSegment:
    """Expressions of a prepared dataset.

    For training, a mask is 1 where the object covers at least half of a pixel; ignored pixels are background.
    A whole mask is as it was annotated, with 255 at ignored pixels, and comes with the expression as it was
    read ("asked"). Groups are "one object", "several objects" and "no object".
    """

    def __init__(
        self, items: records.Items, size: int, *, whole_masks: bool = False, with_others: bool = False
    ):
        """Opens expressions.

        Args:
            items: expressions.
            size: side of the images, pixels.
            whole_masks: keep the masks' own resolution.
            with_others: add the scoring fields of `SegmentExample`: group and other objects (whole masks).
        """
        self.items, self.size = items, size
        self.whole_masks, self.with_others = whole_masks, with_others

    def __len__(self) -> int:
        return len(self.items)

    def image(self, index: int) -> np.ndarray:
        """The example's image at its own resolution, uint8 [H, W, 3]."""
        return records.decode_image(self.items[index][0])

    def text(self, index: int) -> str:
        """The example's expression, without its image and mask."""
        record, number = self.items[index]
        return record["expressions"]["text"][number].decode()

    def __getitem__(self, index: int) -> SegmentExample:
        record, number = self.items[index]
        asked = records.read_expression(record, number)
        image = to_model_size(records.decode_image(record), self.size)
        example = {"image": image, "text": asked.text, "id": asked.id}
        if not self.whole_masks:
            return example | {"mask": self._fit(asked.mask)}
        example |= {"mask": asked.mask, "asked": asked}
        return example | (self._others(record, asked) if self.with_others else {})

    def _others(self, record: Any, asked: records.Asked) -> dict[str, Any]:
        meant = sum(int(target) == asked.target for target in record["annotations"]["target"])
        other = self._another(record, asked.target)
        every = range(len(record["targets"]["counts"]))
        return {
            "group": "no object" if asked.no_target else "several objects" if meant > 1 else "one object",
            "other_text": other.text if other else "",
            "other_mask": other.mask if other else np.zeros_like(asked.mask),
            "objects_mask": np.any([records.read_mask(record, t) == 1 for t in every], axis=0).astype(
                np.uint8
            ),
        }

    def _another(self, record: Any, target: int) -> records.Asked | None:
        """The image's first expression that refers to something else."""
        others = (i for i, t in enumerate(record["expressions"]["target"]) if int(t) != target)
        number = next(others, None)
        return None if number is None else records.read_expression(record, number)

    def _fit(self, mask: np.ndarray) -> np.ndarray:
        shown = Image.fromarray(np.where(mask == IGNORE, 0, mask).astype(np.uint8) * 255)
        return (np.asarray(shown.resize((self.size, self.size), Image.Resampling.BOX)) >= 128).astype(
            np.uint8
        )


class PreparedGenerate:
    """Captions of a prepared dataset, each with its image."""

    def __init__(self, items: records.Items, size: int):
        """`items`: captions; `size`: side of the images, pixels."""
        self.items, self.size = items, size

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> GenerateExample:
        record, number = self.items[index]
        return {
            "image": to_model_size(records.decode_image(record), self.size),
            "text": record["captions"][number].decode(),
            "id": f"{record['image_id'].decode()}#{number}",
        }
