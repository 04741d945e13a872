"""Scores a segmenter on a source: one row per example, and metrics computed from the rows."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np

from genmask_jax.config import SamplerConfig
from genmask_jax.data.examples import OwnImages, ScoredExample, Source
from genmask_jax.evaluation.metrics import (
    boundary_intersection_union,
    count_pixels,
    intersection_union,
    summarize,
)
from genmask_jax.inference.batching import fixed_batches
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.inference.masks import to_image_size, to_mask
from genmask_jax.sharding import part_of_batch
from genmask_jax.utils.hosts import gather_arrays, gather_rows


@dataclasses.dataclass(frozen=True)
class SegmentationResult:
    """Scores, and the rows that they are computed from.

    metrics: metrics over all examples, named as in `summarize`, and those of swapped and absent expressions.
    examples: one row per example: id, text, group, I, U and IoU; area (`prediction`) and score of the mask;
        the image's `pixels`; results for the swapped and for the absent expression.
    probabilities: float16 [N, H, W] of the first N = `keep` examples.
    sampler: how masks were made from probabilities.
    """

    metrics: dict[str, Any]
    examples: list[dict[str, Any]]
    probabilities: np.ndarray
    sampler: SamplerConfig


def evaluate_segmentation(
    segmenter: MaskSampler,
    source: Source[ScoredExample],
    count: int,
    *,
    swapped: bool,
    absent: bool = False,
    keep: int = 0,
    before_batch: Callable[[], None] = lambda: None,
) -> SegmentationResult:
    """Scores the first `count` examples. Hosts share them, and each host returns the complete result.

    Args:
        segmenter: the model, at the size of the source's images.
        source: the examples; masks are scored at their own resolution.
        count: number of examples.
        swapped: also segment another object of each image, and score that mask against the original object
            (a model that ignores the text scores well) and against the newly named object.
        absent: also segment an object that the image does not contain; examples are `AbsentExample`s.
        keep: number of examples whose probabilities are returned.
        before_batch: called before every batch, equally often on all hosts; its exceptions end the
            evaluation.
    """
    count, part = min(count, len(source)), part_of_batch(segmenter.networks.mesh)
    sampler, size = segmenter.sampler, segmenter.networks.size
    rows_by_index, seconds = {}, []
    kept_probabilities = np.zeros((min(keep, count), size, size), np.float16)
    for indices, valid, batch in read_batches(source, count, segmenter.batch_size, part):
        before_batch()
        images = np.stack([example["image"] for example in batch])
        start = time.perf_counter()
        probabilities = segmenter(images, [example["text"] for example in batch], indices)
        seconds.append(time.perf_counter() - start)
        rows = [_score(example, p, sampler) for example, p in zip(batch, probabilities, strict=True)]
        if swapped:
            texts = [example["other_text"] or example["text"] for example in batch]
            for row, example, p in zip(rows, batch, segmenter(images, texts, indices), strict=True):
                row |= _score_swapped(example, p, sampler)
        if absent:
            texts = [example["absent_text"] for example in batch]
            for row, example, p in zip(rows, batch, segmenter(images, texts, indices), strict=True):
                row |= _score_absent(example, p, sampler)
        for i, row, probability in list(zip(indices.tolist(), rows, probabilities, strict=True))[:valid]:
            rows_by_index[i] = row
            if i < len(kept_probabilities):
                kept_probabilities[i] = probability
    examples = gather_rows(rows_by_index)
    metrics = _summarize(examples)
    num_timed = count - segmenter.batch_size * part[1]  # the first batch compiles
    metrics["seconds_per_image"] = sum(seconds[1:]) / num_timed if num_timed > 0 else None
    return SegmentationResult(metrics, examples, gather_arrays(kept_probabilities), sampler)


def read_batches(
    source: Source[Any], count: int, size: int, part: tuple[int, int]
) -> Iterator[tuple[np.ndarray, int, list[Any]]]:
    """Yields (indices, number of valid indices, examples) of this host's batches, prefetched.

    All hosts get the same number of batches; a batch without valid examples has one example.
    """
    batches = [(indices[: max(valid, 1)], valid) for indices, valid in fixed_batches(count, size, part)]
    order = [int(i) for indices, _ in batches for i in indices]
    dataset = grain.MapDataset.source(order).map(source.__getitem__)
    # Half of the cores remain for the model, which may run on the CPU.
    threads = max(1, (os.cpu_count() or 1) // 2)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * size)
    examples = iter(dataset.to_iter_dataset(options))
    for indices, valid in batches:
        yield indices, valid, [next(examples) for _ in indices]


def _iou(intersection: int, union: int) -> float:
    return intersection / union if union else 0.0


def _score(example: Any, probability: np.ndarray, sampler: SamplerConfig) -> dict[str, Any]:
    prediction, score = to_mask(probability, example["mask"].shape, sampler)
    intersection, union, area, _ = count_pixels(prediction, example["mask"])
    all_objects = intersection_union(example["objects_mask"] > 0, example["mask"])
    return {
        "id": example["id"],
        "text": example["text"],
        "group": example["group"],
        "intersection": intersection,
        "union": union,
        "iou": _iou(intersection, union),
        "boundary_iou": _iou(*boundary_intersection_union(prediction, example["mask"])),
        "every_object_iou": _iou(*all_objects),
        "prediction": area,
        "score": score,
        "pixels": prediction.size,
    }


def _score_swapped(example: Any, probability: np.ndarray, sampler: SamplerConfig) -> dict[str, Any]:
    if not example["other_text"]:
        return {}
    prediction, _ = to_mask(probability, example["mask"].shape, sampler)
    return {
        "swapped_text": example["other_text"],
        "swapped_iou_original": _iou(*intersection_union(prediction, example["mask"])),
        "swapped_iou_named": _iou(*intersection_union(prediction, example["other_mask"])),
    }


def _score_absent(example: Any, probability: np.ndarray, sampler: SamplerConfig) -> dict[str, Any]:
    prediction, score = to_mask(probability, example["mask"].shape, sampler)
    return {
        "absent_text": example["absent_text"],
        "absent_group": example["absent_group"],
        "absent_prediction": int(np.count_nonzero(prediction)),
        "absent_score": score,
    }


def _summarize(examples: list[dict[str, Any]]) -> dict[str, Any]:
    def table(rows):
        counts = summarize([row["intersection"] for row in rows], [row["union"] for row in rows])
        means = {
            f"{kind}_mIoU": [row[f"{kind}_iou"] for row in rows] for kind in ("boundary", "every_object")
        }
        return counts | {name: float(np.mean(values)) for name, values in means.items()}

    metrics: dict[str, Any] = table(examples)
    groups = sorted({row["group"] for row in examples})
    metrics["groups"] = {group: table([row for row in examples if row["group"] == group]) for group in groups}
    swapped = [row for row in examples if "swapped_text" in row]
    if swapped:
        metrics["swapped"] = {
            "count": len(swapped),
            "mIoU_original": float(np.mean([row["swapped_iou_original"] for row in swapped])),
            "mIoU_named": float(np.mean([row["swapped_iou_named"] for row in swapped])),
        }
    absent = [row for row in examples if "absent_text" in row]
    if absent:
        metrics["absent"] = _summarize_absent(absent)
    return metrics


def _summarize_absent(examples: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares of absent objects with an empty mask, and of present objects with a nonempty mask."""

    def summary(rows):
        return {
            "count": len(rows),
            "absent_reported": float(np.mean([row["absent_prediction"] == 0 for row in rows])),
        }

    groups = sorted({row["absent_group"] for row in examples})
    return summary(examples) | {
        "present_found": float(np.mean([row["prediction"] > 0 for row in examples])),
        "groups": {
            group: summary([row for row in examples if row["absent_group"] == group]) for group in groups
        },
    }


def sheet_rows(result: SegmentationResult, source: Source[ScoredExample]) -> list[dict[str, Any]]:
    """Returns rows of `sheets.segmentation_sheet` for the examples whose probabilities were returned."""
    pairs = zip(result.probabilities, result.examples, strict=False)
    return [sheet_row(source, i, p, row["iou"], result.sampler) for i, (p, row) in enumerate(pairs)]


def sheet_row(
    source: Source[Any], i: int, probability: np.ndarray, iou: float, sampler: SamplerConfig
) -> dict[str, Any]:
    """Returns the sheet row of example i and its prediction, at the resolution of its mask."""
    example, probability = source[i], probability.astype(np.float32)
    shape = example["mask"].shape
    prediction, _ = to_mask(probability, shape, sampler)
    return {
        "image": source.image(i) if isinstance(source, OwnImages) else example["image"],
        "text": example["text"],
        "mask": example["mask"],
        "probability": to_image_size(probability, shape),
        "prediction": prediction,
        "iou": iou,
    }
