"""Plans of datasets to prepare: images with their annotations, and the problems found while reading them."""

import dataclasses
import hashlib
from typing import Any

import numpy as np
from etils import epath

from genmask_jax.data import masks
from genmask_jax.data.raw_formats import shapes
from genmask_jax.data.raw_formats.label_files import LabelFile
from genmask_jax.data.raw_formats.layout import image_bytes
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import UNREADABLE, decode, why_unreadable


@dataclasses.dataclass(frozen=True)
class Target:
    """The mask that one or more expressions refer to.

    ref_id: the publisher's id.
    ann_ids: ids of the objects; empty if the expressions refer to nothing in the image.
    segmentations: segmentations of the objects in COCO's format, checked by `masks.usable`.
    shapes: (label, points) in ReasonSeg's format, instead of segmentations.
    numbers: class numbers in the image's `labels`, instead of segmentations.
    """

    ref_id: int
    ann_ids: tuple[int, ...] = ()
    segmentations: tuple[Any, ...] = ()
    shapes: tuple[tuple[str, Any], ...] = ()
    numbers: tuple[int, ...] = ()


NO_CLASS_TARGETS = (Target(0),)
"""The targets of an annotated image without any class: one target without an expression."""
NO_CLASS_NOTE = (
    "an image shows no class: it counts in scores of label maps, and is trained on if "
    "config.data.absent_share is positive"
)


@dataclasses.dataclass(frozen=True)
class Expression:
    """A text that refers to a target of the image.

    id: unique in a split; predictions are matched by it.
    target: index of the target.
    is_sentence: whether the text is a sentence or question rather than a phrase.
    """

    id: str
    text: str
    target: int
    is_sentence: bool = False


@dataclasses.dataclass(frozen=True)
class PlannedImage:
    """One image of a split.

    size: (height, width) of its annotations; None if they give none.
    turned: whether its annotations refer to the image after its EXIF orientation is applied, as labelling
        tools show it; if False, to the pixels as stored, as in COCO.
    labels: file with the class numbers of targets with `numbers`.
    void: segmentations of ignored pixels. Pixels of a target itself are not ignored for it.
    """

    path: str
    image_id: str
    size: masks.Size | None = None
    captions: tuple[str, ...] = ()
    turned: bool = False
    targets: tuple[Target, ...] = ()
    expressions: tuple[Expression, ...] = ()
    labels: LabelFile | None = None
    void: tuple[Any, ...] = ()

    def example(self) -> dict[str, Any]:
        """The record, with `builders.FEATURES`: the original image file, and masks as run lengths.

        Raises:
            ValueError: the image cannot be read, or has another size than its annotations.
        """
        content = b""
        try:
            content = image_bytes(epath.Path(self.path))
            width, height = decode(content, upright=self.turned).size
        except UNREADABLE as error:
            reason = why_unreadable(error, content)
            raise ValueError(f"{self.path}: this image cannot be read ({reason})") from error
        if self.size not in (None, (height, width)):
            raise ValueError(
                f"{self.path}: the image has {height} x {width} pixels, its annotations are for "
                f"{self.size[0]} x {self.size[1]}"
            )
        numbers = self.labels.read() if self.labels else np.zeros((height, width), np.uint8)
        void = np.isin(numbers, self.labels.ignored if self.labels else ())
        if self.void:
            void = masks.decode(_union(self.void, (height, width)), (height, width))
        painted = [_paint(target, (height, width), numbers, void) for target in self.targets]
        return {
            "image": content,
            "image_id": self.image_id,
            "height": height,
            "width": width,
            "turned": self.turned,
            "captions": list(self.captions),
            "targets": [
                {
                    "ref_id": target.ref_id,
                    "no_target": not (target.ann_ids or target.shapes or target.numbers),
                    "counts": counts,
                    "ignored": ignored,
                }
                for target, (counts, ignored) in zip(self.targets, painted, strict=True)
            ],
            "annotations": [
                {"target": i, "ann_id": ann_id}
                for i, target in enumerate(self.targets)
                for ann_id in target.ann_ids
            ],
            "expressions": [dataclasses.asdict(expression) for expression in self.expressions],
        }


def _paint(target: Target, size: masks.Size, numbers: np.ndarray, void: np.ndarray) -> tuple[str, str]:
    """Run lengths of the target and of the ignored pixels, "" without ignored pixels.

    Args:
        target: the target.
        size: (height, width) of the image.
        numbers: class numbers, int [H, W].
        void: ignored pixels, bool [H, W].
    """
    if target.numbers:
        ignored = masks.encode(void) if void.any() else ""
        return masks.encode(np.isin(numbers, target.numbers)), ignored
    if target.shapes:
        painted = shapes.paint(target.shapes, size)
        ignored = painted == masks.IGNORE
        return masks.encode(painted == 1), masks.encode(ignored) if ignored.any() else ""
    counts = _union(target.segmentations, size)
    ignored = void & ~masks.decode(counts, size) if void.any() else void
    return counts, masks.encode(ignored) if ignored.any() else ""


def _union(segmentations: tuple[Any, ...], size: masks.Size) -> str:
    return masks.union([masks.from_coco(s, size) for s in segmentations], size)


def _name(path: str) -> str:
    return epath.Path(path).name


@dataclasses.dataclass(frozen=True)
class Plan:
    """Images by split, in the order in which they are written, and the problems in the raw data.

    classes: expressions that refer to all pixels of a class; () for a dataset without classes.
    """

    splits: dict[str, list[PlannedImage]]
    problems: Problems
    classes: tuple[str, ...] = ()

    def without_empty_splits(self) -> "Plan":
        """The plan without empty splits, each of which is reported as a problem.

        Raises:
            UserError: all splits are empty.
        """
        for split in (split for split, images in self.splits.items() if not images):
            self.problems.add(f"the split {split} has no image")
        splits = {split: images for split, images in self.splits.items() if images}
        if not splits:
            reason = (self.problems.left_out or ["no split has an image"])[0]
            raise UserError(f"--raw has no usable image; {reason}")
        return Plan(splits, self.problems, self.classes)

    def fingerprint(self) -> str:
        """SHA-256 of the plan, independent of the location of the raw files."""
        digest = hashlib.sha256()
        for split, images in self.splits.items():
            digest.update(split.encode())
            for image in images:
                labels = image.labels and dataclasses.replace(image.labels, path=_name(image.labels.path))
                image = dataclasses.replace(image, path=_name(image.path), labels=labels)
                digest.update(repr(image).encode())
        return digest.hexdigest()
