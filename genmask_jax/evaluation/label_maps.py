"""Scores label maps like semantic segmentation, with one confusion matrix over the split.

The IoU of a class is computed over all counted pixels of the split: pixels of the class in both truth and
prediction, divided by pixels of the class in either. mIoU is the mean over classes that occur in either.
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

NUM_INSPECTED = 20
"""Number of training images that `is_closed` inspects."""
IMAGES_PER_BATCH = 8
"""Images per batch and host; every class is segmented in each."""


@dataclasses.dataclass(frozen=True)
class LabelMapResult:
    """Scores.

    metrics: see `score`, and `threshold`, the probability below which a pixel has no class.
    predicted: int [H, W], label maps of the first images.
    """

    metrics: dict[str, Any]
    predicted: list[np.ndarray]


def evaluate_label_maps(
    segmenter: MaskSampler, source: PreparedLabelMaps, threshold: float, count: int, keep: int
) -> LabelMapResult:
    """Segments every class in each of the first `count` images. Hosts share them; each returns all scores.

    All hosts run the same programs equally often; incomplete batches are padded with their last image.

    Args:
        segmenter: the model.
        source: images with labels, at the segmenter's size.
        threshold: a pixel where no class has a higher probability has no class.
        count: number of images.
        keep: number of label maps to return, from the first host's images.
    """
    part = part_of_batch(segmenter.networks.mesh)
    sizes = IMAGES_PER_BATCH, min(IMAGES_PER_BATCH * len(source.phrases), segmenter.batch_size)
    matrices, predictions = {}, {}
    for indices, valid, batch in read_batches(source, min(count, len(source)), IMAGES_PER_BATCH, part):
        padded = np.minimum(np.arange(IMAGES_PER_BATCH), len(batch) - 1)
        images = np.stack([batch[n]["image"] for n in padded])
        probabilities, _ = segmenter.sample_phrases(
            images, source.phrases, indices[padded], batch_sizes=sizes
        )
        for n, (i, example) in enumerate(zip(indices.tolist()[:valid], batch, strict=False)):
            labels = example["labels"]
            predicted = label_map(probabilities[n], labels.shape, threshold)
            matrices[i] = confusion(labels, predicted, len(source.classes)).tolist()
            if i < keep:
                predictions[i] = predicted
    total = np.sum(gather_rows(matrices), axis=0)
    metrics = score(np.asarray(total), source.classes) | {"threshold": threshold}
    return LabelMapResult(metrics, [predictions[i] for i in sorted(predictions)])


def is_closed(source: PreparedLabelMaps) -> bool:
    """Whether every pixel of the first images has a class or is ignored, so that "no class" is not needed."""
    return not any((source[i]["labels"] == NO_CLASS).any() for i in range(min(NUM_INSPECTED, len(source))))


def confusion(
    truth: Int[np.ndarray, "H W"], predicted: Int[np.ndarray, "H W"], classes: int
) -> Int[np.ndarray, "{classes}+1 {classes}+1"]:
    """Counts pixels by true class (rows) and predicted class (columns); the last of each is "no class".

    Pixels that the truth ignores are not counted.
    """
    counted = truth != IGNORED_PIXEL
    rows, columns = (np.where(x == NO_CLASS, classes, x)[counted] for x in (truth, predicted))
    flat = np.bincount(rows * (classes + 1) + columns, minlength=(classes + 1) ** 2)
    return flat.reshape(classes + 1, classes + 1)


def score(matrix: Int[np.ndarray, "N N"], classes: tuple[str, ...]) -> dict[str, Any]:
    """Computes mIoU, pixel accuracy and the IoU of each class (None if it is absent) from a confusion matrix.

    A class that is predicted for a pixel without a class counts as an error. If such pixels exist,
    `mIoU_with_none` includes "no class" as another class, like VOC's background.
    """
    correct = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - correct
    iou = [int(c) / int(u) if u else None for c, u in zip(correct, union, strict=True)]
    present = [value for value in iou[:-1] if value is not None]
    scores = {
        "mIoU": float(np.mean(present)) if present else 0.0,
        "pixel_accuracy": int(correct.sum()) / max(1, int(matrix.sum())),
        "IoU": dict(zip(classes, iou[:-1], strict=True)),
    }
    if matrix[-1].any() and iou[-1] is not None:
        scores["mIoU_with_none"] = float(np.mean([*present, iou[-1]]))
    return scores
