"""Prepared datasets as sources of examples.

Images are stretched to the model's square. Masks are stretched with them for training, and keep their own
resolution for scoring.
"""

import functools
from typing import Any

import numpy as np

from genmask_jax.data.examples import (
    IGNORED_PIXEL,
    NO_CLASS,
    FullSizeExample,
    GenerateExample,
    LabelledExample,
    ScoredExample,
    SegmentExample,
)
from genmask_jax.data.masks import IGNORE, to_model_mask
from genmask_jax.data.prepared import records
from genmask_jax.utils.images import to_model_size


class BenchmarkExample(SegmentExample):
    """An expression with its mask at the image's own size, and its `ReferringExpression`."""

    expression: records.ReferringExpression


class _Expressions:
    """Expressions of a prepared dataset."""

    def __init__(self, items: records.Items, size: int, template: str = "{}"):
        """`items`: expressions; `size`: side of the images, pixels; `template`: text for a class."""
        self.items, self.size, self.template = items, size, template
        self.classes = records.read_classes(items.directory)

    def __len__(self) -> int:
        return len(self.items)

    def image(self, index: int) -> np.ndarray:
        """The example's image at its own resolution, uint8 [H, W, 3]."""
        return records.decode_image(self.items[index][0])

    def text(self, index: int) -> str:
        """The example's expression, without its image and mask."""
        record, number = self.items[index]
        return self._fill_template(record["expressions"]["text"][number].decode())

    def _fill_template(self, text: str) -> str:
        return self.template.format(text) if text in self.classes else text

    def _image(self, record: Any) -> np.ndarray:
        return to_model_size(records.decode_image(record), self.size)


class PreparedSegment(_Expressions):
    """Expressions for training, with masks at the model's size (`masks.to_model_mask`)."""

    def __getitem__(self, index: int) -> SegmentExample:
        record, number = self.items[index]
        expression = records.read_expression(record, number)
        mask = to_model_mask(expression.mask, self.size)
        return {
            "image": self._image(record),
            "mask": mask,
            "text": self._fill_template(expression.text),
            "id": expression.id,
        }

    def full_size(self, index: int) -> FullSizeExample:
        """The example at the image's own size, with the class as annotated."""
        record, number = self.items[index]
        expression = records.read_expression(record, number)
        texts = {text.decode() for text in record["expressions"]["text"]}
        return {
            "image": records.decode_image(record),
            "mask": expression.mask,
            "text": expression.text,
            "id": expression.id,
            "is_class": expression.text in self.classes,
            "absent": tuple(name for name in self.classes if name not in texts),
            "classless": self.classless,
        }

    @functools.cached_property
    def classless(self) -> "PreparedClasslessImages | tuple[()]":
        """Images of the split without any class; () if the dataset has no classes."""
        return PreparedClasslessImages(self.items.directory, self.items.split) if self.classes else ()


class PreparedClasslessImages:
    """See `examples.ClasslessImages`."""

    def __init__(self, directory: str, split: str):
        self.items = records.Items(directory, split, "classless")
        self.classes = records.read_classes(directory)
        annotated = len(records.Items(directory, split, "targets", first_only=True))
        self.share = len(self.items) / max(1, annotated)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> FullSizeExample:
        record, number = self.items[index]
        return {
            "image": records.decode_image(record),
            "mask": records.read_mask(record, number),
            "text": "",
            "id": record["image_id"].decode(),
            "is_class": True,
            "absent": self.classes,
            "classless": self,
        }


class PreparedBenchmark(_Expressions):
    """Expressions for a benchmark, with masks at the image's own size; 255 at ignored pixels."""

    def __getitem__(self, index: int) -> BenchmarkExample:
        record, number = self.items[index]
        expression = records.read_expression(record, number)
        image = self._image(record)
        return {
            "image": image,
            "mask": expression.mask,
            "text": expression.text,
            "id": expression.id,
            "expression": expression,
        }


class PreparedScored(_Expressions):
    """Expressions for validation, with masks at the image's own size and the image's other objects.

    Groups are "one object", "several objects" and "no object"; each class is a group.
    """

    def __getitem__(self, index: int) -> ScoredExample:
        record, number = self.items[index]
        expression = records.read_expression(record, number)
        num_objects = sum(int(target) == expression.target for target in record["annotations"]["target"])
        other = self._another(record, expression.target)
        targets = range(len(record["targets"]["counts"]))
        objects = np.any([records.read_mask(record, t) == 1 for t in targets], axis=0)
        return {
            "image": self._image(record),
            "mask": expression.mask,
            "text": self._fill_template(expression.text),
            "id": expression.id,
            "group": expression.text if expression.text in self.classes else _group(expression, num_objects),
            "other_text": self._fill_template(other.text) if other else "",
            "other_mask": other.mask if other else np.zeros_like(expression.mask),
            "objects_mask": objects.astype(np.uint8),
        }

    def _another(self, record: Any, target: int) -> records.ReferringExpression | None:
        """The first expression with another target in the image."""
        others = (i for i, t in enumerate(record["expressions"]["target"]) if int(t) != target)
        number = next(others, None)
        return None if number is None else records.read_expression(record, number)


class PreparedLabelMaps:
    """Images at their own size with the class of each pixel, for a dataset of classes.

    Annotated images without any class are included.
    """

    def __init__(self, items: records.Items, size: int, template: str):
        """`items`: one target per image; `size` and `template`: see `PreparedSegment`."""
        self.items, self.size = items, size
        self.classes = records.read_classes(items.directory)
        self.phrases = [template.format(name) for name in self.classes]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> LabelledExample:
        record, target = self.items[index]
        image = records.decode_image(record)
        labels = np.full(image.shape[:2], NO_CLASS, np.int32)
        masks = {}
        for number, text in enumerate(record["expressions"]["text"]):
            if text.decode() in self.classes:
                masks[text.decode()] = records.read_expression(record, number).mask
        # If classes overlap, the one with the smaller area is on top.
        for name in sorted(masks, key=lambda name: -np.count_nonzero(masks[name] == 1)):
            labels[masks[name] == 1] = self.classes.index(name)
            labels[masks[name] == IGNORE] = IGNORED_PIXEL
        if not masks:
            labels[records.read_mask(record, target) == IGNORE] = IGNORED_PIXEL
        return {"image": to_model_size(image, self.size), "full_image": image, "labels": labels}


def _group(expression: records.ReferringExpression, num_objects: int) -> str:
    return "no object" if expression.no_target else "several objects" if num_objects > 1 else "one object"


class PreparedGenerate:
    """Captions of a prepared dataset, each with its image."""

    def __init__(self, items: records.Items, size: int):
        """`items`: captions; `size`: side of the images, pixels."""
        self.items, self.size = items, size

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> GenerateExample:
        example = self.full_size(index)
        return {**example, "image": to_model_size(example["image"], self.size)}

    def full_size(self, index: int) -> GenerateExample:
        """The example at the image's own size."""
        record, number = self.items[index]
        return {
            "image": records.decode_image(record),
            "text": self._prompt(record, number),
            "id": f"{record['image_id'].decode()}#{number}",
        }

    def _prompt(self, record: Any, number: int) -> str:
        return record["captions"][number].decode()


class PreparedClassPrompts(PreparedGenerate):
    """Images without captions, each with a prompt that lists its classes; `items` has one item per image."""

    def _prompt(self, record: Any, number: int) -> str:
        classes = records.read_classes(self.items.directory)
        present = [name for text in record["expressions"]["text"] if (name := text.decode()) in classes]
        *names, last = dict.fromkeys(present) or ["nothing"]
        return f"a photograph with {', '.join(names)} and {last}" if names else f"a photograph with {last}"
