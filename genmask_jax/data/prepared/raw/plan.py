"""Plans of what to prepare: images with their annotations, and the problems found while reading them."""

import dataclasses
import hashlib
from typing import Any

import numpy as np
from etils import epath

from genmask_jax.data import masks
from genmask_jax.data.prepared.raw import shapes
from genmask_jax.data.prepared.raw.label_files import LabelFile
from genmask_jax.data.prepared.raw.layout import image_bytes
from genmask_jax.data.prepared.raw.problems import Problems
from genmask_jax.errors import UserError
from genmask_jax.images import UNREADABLE, decode, why_unreadable


@dataclasses.dataclass(frozen=True)
class Target:
    """What one or more expressions refer to: annotated objects together, nothing, or shapes painted in turn.

    ref_id: the publisher's id of it.
    ann_ids: ids of the objects; empty if the expressions refer to nothing in the image.
    segmentations: those of the objects, in COCO's format, checked by `masks.usable`.
    shapes: (label, points) in ReasonSeg's format, instead of segmentations.
    numbers: those of its pixels in the image's `labels`, instead of segmentations.
    """

    ref_id: int
    ann_ids: tuple[int, ...] = ()
    segmentations: tuple[Any, ...] = ()
    shapes: tuple[tuple[str, Any], ...] = ()
    numbers: tuple[int, ...] = ()


NOTHING = (Target(0),)
"""The targets of an image that was annotated and shows no class: one that no expression refers to."""
NOTHING_NOTE = (
    "an image shows no class: it counts in scores of label maps, and is trained on where "
    "config.data.absent_share is positive"
)


@dataclasses.dataclass(frozen=True)
class Expression:
    """A text that refers to the `target`-th Target of the image.

    id: unique in a split; predictions are matched by it.
    is_sentence: whether it is a whole sentence or question rather than a phrase.
    """

    id: str
    text: str
    target: int
    is_sentence: bool = False


@dataclasses.dataclass(frozen=True)
class PlannedImage:
    """One image of a split.

    size: height and width that its annotations are for; None if they give none.
    turned: whether its annotations are for the image as turned by its EXIF orientation, as labelling tools
        show it, rather than for the pixels as stored, as COCO's are.
    labels: where the pixels of targets with `numbers` are.
    void: segmentations of pixels that count for no target, but where its own are.
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
        """Its record, with `builders.FEATURES`: the original image file, and masks as run lengths.

        Raises:
            ValueError: the image cannot be read in full, or differs in size from its annotations.
        """
        content = b""
        try:
            content = image_bytes(epath.Path(self.path))
            width, height = decode(content, upright=self.turned).size
        except UNREADABLE as error:
            why = why_unreadable(error, content)
            raise ValueError(f"{self.path}: this image cannot be read ({why})") from error
        if self.size not in (None, (height, width)):
            raise ValueError(
                f"{self.path}: the image has {height} x {width} pixels, its annotations are for "
                f"{self.size[0]} x {self.size[1]}"
            )
        numbers = self.labels.read() if self.labels else np.zeros((height, width), np.uint8)
        unknown = np.isin(numbers, self.labels.ignored if self.labels else ())
        if self.void:
            unknown = masks.decode(_union(self.void, (height, width)), (height, width))
        painted = [_paint(target, (height, width), numbers, unknown) for target in self.targets]
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


def _paint(target: Target, size: masks.Size, numbers: np.ndarray, unknown: np.ndarray) -> tuple[str, str]:
    """Counts of the object and of the ignored pixels; the latter "" if there are none.

    `numbers` and `unknown` [H, W] are those of the image's `labels`, and which pixels do not count.
    """
    if target.numbers:
        ignored = masks.encode(unknown) if unknown.any() else ""
        return masks.encode(np.isin(numbers, target.numbers)), ignored
    if target.shapes:
        painted = shapes.paint(target.shapes, size)
        ignored = painted == masks.IGNORE
        return masks.encode(painted == 1), masks.encode(ignored) if ignored.any() else ""
    counts = _union(target.segmentations, size)
    ignored = unknown & ~masks.decode(counts, size) if unknown.any() else unknown
    return counts, masks.encode(ignored) if ignored.any() else ""


def _union(segmentations: tuple[Any, ...], size: masks.Size) -> str:
    return masks.union([masks.from_coco(s, size) for s in segmentations], size)


def _name(path: str) -> str:
    return epath.Path(path).name


@dataclasses.dataclass(frozen=True)
class Plan:
    """Images by split, in the order in which they are written, and what is wrong with the raw data.

    classes: the expressions that each mean all pixels of a class, if there are any.
    """

    splits: dict[str, list[PlannedImage]]
    problems: Problems
    classes: tuple[str, ...] = ()

    def without_empty_splits(self) -> "Plan":
        """The plan without splits that have no image, each of which becomes a problem.

        Raises:
            UserError: no split has an image.
        """
        for split in (split for split, images in self.splits.items() if not images):
            self.problems.add(f"the split {split} has no image")
        splits = {split: images for split, images in self.splits.items() if images}
        if not splits:
            why = (self.problems.left_out or ["nothing is said"])[0]
            raise UserError(f"--raw has no image that can be used; {why}")
        return Plan(splits, self.problems, self.classes)

    def fingerprint(self) -> str:
        """SHA-256 of the plan, independent of where the raw files are."""
        digest = hashlib.sha256()
        for split, images in self.splits.items():
            digest.update(split.encode())
            for image in images:
                labels = image.labels and dataclasses.replace(image.labels, path=_name(image.labels.path))
                image = dataclasses.replace(image, path=_name(image.path), labels=labels)
                digest.update(repr(image).encode())
        return digest.hexdigest()
