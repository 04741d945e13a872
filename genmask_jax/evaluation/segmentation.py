"""Scores a segmenter on a source: per-example evidence first, tables from it."""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from genmask_jax.data.examples import Source
from genmask_jax.evaluation.metrics import intersection_union, summarize
from genmask_jax.inference.segmenter import Segmenter


@dataclasses.dataclass(frozen=True)
class SegmentationResult:
    """Scores and their evidence.

    metrics: of all examples, as `summarize` names them, and what else was asked for.
    examples: per example id, text, group, I, U and IoU (and those of the swapped expression).
    probabilities: float16 [N, H, W].
    threshold: above which a probability was foreground.
    """

    metrics: dict[str, Any]
    examples: list[dict[str, Any]]
    probabilities: np.ndarray
    threshold: float


def evaluate_segmentation(
    segmenter: Segmenter, source: Source, count: int, *, swapped: bool
) -> SegmentationResult:
    """Scores the first `count` examples.

    Args:
        segmenter: sized for the source's pictures.
        source: of `SegmentExample`s.
        count: how many.
        swapped: also ask for another object of each picture, and score that mask against the object first
            meant (words that are not listened to would score well) and against the one then named.
    """
    examples, probabilities, seconds = [], [], 0.0
    threshold = segmenter.sampler.mask_threshold
    for start, batch in _batches(source, count, segmenter.batch_size):
        images = np.stack([example["image"] for example in batch])
        indices = np.arange(start, start + len(batch))
        began = time.perf_counter()
        probability = segmenter(images, [example["text"] for example in batch], indices)
        if start > 0:  # the first batch compiles
            seconds += time.perf_counter() - began
        probabilities.append(probability.astype(np.float16))
        rows = [_score(example, p > threshold) for example, p in zip(batch, probability, strict=True)]
        if swapped:
            others = [example["other_text"] or example["text"] for example in batch]
            for row, example, p in zip(rows, batch, segmenter(images, others, indices), strict=True):
                row |= _score_swapped(example, p > threshold)
        examples += rows
    metrics = _summarize(examples, swapped)
    timed = max(0, len(examples) - segmenter.batch_size)
    metrics["seconds_per_image"] = seconds / timed if timed else None
    return SegmentationResult(metrics, examples, np.concatenate(probabilities), threshold)


def _batches(source: Source, count: int, size: int) -> Iterator[tuple[int, list[Any]]]:
    dataset = grain.MapDataset.source(source)[: min(count, len(source))]
    batch, start = [], 0
    for example in dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2 * size)):
        batch.append(example)
        if len(batch) == size:
            yield start, batch
            batch, start = [], start + size
    if batch:
        yield start, batch


def _iou(intersection: int, union: int) -> float:
    return intersection / union if union else 0.0


def _score(example: Any, prediction: np.ndarray) -> dict[str, Any]:
    intersection, union = intersection_union(prediction, example["mask"])
    every_object = intersection_union(example["objects_mask"] > 0, example["mask"])
    return {
        "id": example["id"],
        "text": example["text"],
        "group": example["group"],
        "intersection": intersection,
        "union": union,
        "iou": _iou(intersection, union),
        "every_object_iou": _iou(*every_object),
    }


def _score_swapped(example: Any, prediction: np.ndarray) -> dict[str, Any]:
    if not example["other_text"]:
        return {}
    return {
        "swapped_text": example["other_text"],
        "swapped_iou_original": _iou(*intersection_union(prediction, example["mask"])),
        "swapped_iou_named": _iou(*intersection_union(prediction, example["other_mask"])),
    }


def _summarize(examples: list[dict[str, Any]], swapped: bool) -> dict[str, Any]:
    def table(rows):
        return summarize([row["intersection"] for row in rows], [row["union"] for row in rows])

    metrics: dict[str, Any] = table(examples)
    groups = sorted({row["group"] for row in examples})
    metrics["groups"] = {
        group: table(rows) | {"every_object_mIoU": float(np.mean([r["every_object_iou"] for r in rows]))}
        for group in groups
        for rows in [[row for row in examples if row["group"] == group]]
    }
    metrics["every_object_mIoU"] = float(np.mean([row["every_object_iou"] for row in examples]))
    pairs = [row for row in examples if "swapped_text" in row]
    if swapped and pairs:
        metrics["swapped"] = {
            "count": len(pairs),
            "mIoU_original": float(np.mean([row["swapped_iou_original"] for row in pairs])),
            "mIoU_named": float(np.mean([row["swapped_iou_named"] for row in pairs])),
        }
    return metrics


def sheet_rows(result: SegmentationResult, source: Source, count: int) -> list[dict[str, Any]]:
    """The first `count` examples as rows of `sheets.segmentation_sheet`."""
    rows = []
    for i, scored in enumerate(result.examples[:count]):
        probability = result.probabilities[i].astype(np.float32)
        row = {name: source[i][name] for name in ("image", "text", "mask")}
        row |= {"probability": probability, "prediction": probability > result.threshold}
        rows.append(row | {"iou": scored["iou"]})
    return rows
