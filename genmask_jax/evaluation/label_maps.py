"""Scores label maps as semantic segmentation is scored: one confusion matrix over a whole split.

A class's IoU is, over all pixels of the split that count, those that are of the class in truth and prediction
divided by those that are of it in either. The mean is over the classes that occur in either.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int

from genmask_jax.data.examples import IGNORED_PIXEL, NO_CLASS
from genmask_jax.data.prepared.source import PreparedLabelMaps
from genmask_jax.evaluation.segmentation import read_batches
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.inference.masks import label_map
from genmask_jax.sharding import part_of_batch
from genmask_jax.utils.hosts import gather_rows

LOOKED_AT = 20
"""Training images that tell whether every pixel has a class."""
IMAGES = 8
"""Per batch and host; each is asked for every class."""


@dataclasses.dataclass(frozen=True)
class LabelMaps:
    """Scores (`score`), the threshold below which there is no class, and label maps of the first images."""

    metrics: dict[str, Any]
    predicted: list[np.ndarray]


def evaluate_label_maps(
    segmenter: MaskSampler, source: PreparedLabelMaps, threshold: float, count: int, keep: int
) -> LabelMaps:
    """Asks for every class in each of the first `count` images. Hosts share them; each returns all scores.

    All hosts run the same programs equally often: a batch that lacks images is filled up with its last one.

    Args:
        segmenter: the model.
        source: images with labels, at the segmenter's size.
        threshold: a pixel where no class is more probable has none.
        count: number of images.
        keep: number of label maps to keep, of the first host's images.
    """
    part = part_of_batch(segmenter.networks.mesh)
    sizes = IMAGES, min(IMAGES * len(source.phrases), segmenter.batch_size)
    matrices, kept = {}, {}
    for indices, real, batch in read_batches(source, min(count, len(source)), IMAGES, part):
        filled = np.minimum(np.arange(IMAGES), len(batch) - 1)
        images = np.stack([batch[n]["image"] for n in filled])
        probabilities, _ = segmenter.sample_phrases(
            images, source.phrases, indices[filled], batch_sizes=sizes
        )
        for n, (i, example) in enumerate(zip(indices.tolist()[:real], batch, strict=False)):
            labels = example["labels"]
            predicted = label_map(probabilities[n], labels.shape, threshold)
            matrices[i] = confusion(labels, predicted, len(source.classes)).tolist()
            if i < keep:
                kept[i] = predicted
    total = np.sum(gather_rows(matrices), axis=0)
    metrics = score(np.asarray(total), source.classes) | {"threshold": threshold}
    return LabelMaps(metrics, [kept[i] for i in sorted(kept)])


def is_closed(source: PreparedLabelMaps) -> bool:
    """Whether every pixel of the first images has a class or is ignored, so that none need be predicted."""
    return not any((source[i]["labels"] == NO_CLASS).any() for i in range(min(LOOKED_AT, len(source))))


def confusion(
    truth: Int[np.ndarray, "H W"], predicted: Int[np.ndarray, "H W"], classes: int
) -> Int[np.ndarray, "{classes}+1 {classes}+1"]:
    """Counts of pixels by true class (rows) and predicted class; the last row and column are "no class".

    Ignored pixels of the truth are not counted.
    """
    counted = truth != IGNORED_PIXEL
    rows, columns = (np.where(x == NO_CLASS, classes, x)[counted] for x in (truth, predicted))
    flat = np.bincount(rows * (classes + 1) + columns, minlength=(classes + 1) ** 2)
    return flat.reshape(classes + 1, classes + 1)


def score(matrix: Int[np.ndarray, "N N"], classes: tuple[str, ...]) -> dict[str, Any]:
    """mIoU, pixel accuracy, and IoU of each class (None if it occurs nowhere), from a confusion matrix.

    Pixels without a class count against what is predicted there. If there are any, `mIoU_with_none` has "no
    class" as one more class, as VOC's background is.
    """
    right = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - right
    iou = [int(r) / int(u) if u else None for r, u in zip(right, union, strict=True)]
    named = [value for value in iou[:-1] if value is not None]
    scores = {
        "mIoU": float(np.mean(named)) if named else 0.0,
        "pixel_accuracy": int(right.sum()) / max(1, int(matrix.sum())),
        "IoU": dict(zip(classes, iou[:-1], strict=True)),
    }
    if matrix[-1].any() and iou[-1] is not None:
        scores["mIoU_with_none"] = float(np.mean([*named, iou[-1]]))
    return scores
