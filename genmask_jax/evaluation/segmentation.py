"""Scores a segmenter on a source: per-example evidence first, tables from it."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np

from genmask_jax.config import SamplerConfig
from genmask_jax.data.examples import OwnImages, ScoredExample, Source
from genmask_jax.evaluation.metrics import count_pixels, intersection_union, summarize
from genmask_jax.inference.batching import fixed_batches
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.inference.masks import to_image_size, to_mask
from genmask_jax.sharding import part_of_batch
from genmask_jax.utils.hosts import gather_arrays, gather_rows


@dataclasses.dataclass(frozen=True)
class SegmentationResult:
    """Scores and their evidence.

    metrics: over all examples, named as in `summarize`, and any others that were requested.
    examples: id, text, group, I, U and IoU of each example, area (`prediction`) and score of its mask, and
        the image's `pixels`; what was found for the swapped and for the absent expression.
    probabilities: float16 [N, H, W], of the first N examples, as many as were to be kept.
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
    """Scores the first `count` examples. Hosts share them, and each returns the whole result.

    Args:
        segmenter: the model, at the size of the source's images.
        source: `SegmentExample`s to be scored; masks are scored at their own resolution.
        count: number of examples.
        swapped: also ask for another object of each image, and score that mask against the original object
            (a model that ignores the text would score well) and against the newly named one.
        absent: also ask for an object that the image does not contain; examples are `AbsentExample`s.
        keep: number of examples whose probabilities are kept.
        before_batch: called before every batch, equally often on all hosts; what it raises ends the evaluation.
    """
    count, part = min(count, len(source)), part_of_batch(segmenter.networks.mesh)
    sampler, size = segmenter.sampler, segmenter.networks.size
    scored, kept, seconds = {}, np.zeros((min(keep, count), size, size), np.float16), []
    for indices, real, batch in read_batches(source, count, segmenter.batch_size, part):
        before_batch()
        images = np.stack([example["image"] for example in batch])
        began = time.perf_counter()
        probabilities = segmenter(images, [example["text"] for example in batch], indices)
        seconds.append(time.perf_counter() - began)
        rows = [_score(example, p, sampler) for example, p in zip(batch, probabilities, strict=True)]
        if swapped:
            others = [example["other_text"] or example["text"] for example in batch]
            for row, example, p in zip(rows, batch, segmenter(images, others, indices), strict=True):
                row |= _score_swapped(example, p, sampler)
        if absent:
            names = [example["absent_text"] for example in batch]
            for row, example, p in zip(rows, batch, segmenter(images, names, indices), strict=True):
                row |= _score_absent(example, p, sampler)
        for i, row, probability in list(zip(indices.tolist(), rows, probabilities, strict=True))[:real]:
            scored[i] = row
            if i < len(kept):
                kept[i] = probability
    examples = gather_rows(scored)
    metrics = _summarize(examples)
    timed = count - segmenter.batch_size * part[1]  # the first batch compiles
    metrics["seconds_per_image"] = sum(seconds[1:]) / timed if timed > 0 else None
    return SegmentationResult(metrics, examples, gather_arrays(kept), sampler)


def read_batches(
    source: Source[Any], count: int, size: int, part: tuple[int, int]
) -> Iterator[tuple[np.ndarray, int, list[Any]]]:
    """Yields (indices, how many of them count, examples) of this host's batches, prefetched.

    All hosts get the same number of batches; a batch that is only padding has a single example.
    """
    batches = [(indices[: max(real, 1)], real) for indices, real in fixed_batches(count, size, part)]
    wanted = [int(i) for indices, _ in batches for i in indices]
    dataset = grain.MapDataset.source(wanted).map(source.__getitem__)
    # Half of the cores are left to the model, which may run on the CPU.
    threads = max(1, (os.cpu_count() or 1) // 2)
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * size)
    examples = iter(dataset.to_iter_dataset(read))
    for indices, real in batches:
        yield indices, real, [next(examples) for _ in indices]


def _iou(intersection: int, union: int) -> float:
    return intersection / union if union else 0.0


def _score(example: Any, probability: np.ndarray, sampler: SamplerConfig) -> dict[str, Any]:
    prediction, score = to_mask(probability, example["mask"].shape, sampler)
    intersection, union, area, _ = count_pixels(prediction, example["mask"])
    every_object = intersection_union(example["objects_mask"] > 0, example["mask"])
    return {
        "id": example["id"],
        "text": example["text"],
        "group": example["group"],
        "intersection": intersection,
        "union": union,
        "iou": _iou(intersection, union),
        "every_object_iou": _iou(*every_object),
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
    if pairs:
        metrics["swapped"] = {
            "count": len(pairs),
            "mIoU_original": float(np.mean([row["swapped_iou_original"] for row in pairs])),
            "mIoU_named": float(np.mean([row["swapped_iou_named"] for row in pairs])),
        }
    asked = [row for row in examples if "absent_text" in row]
    if asked:
        metrics["absent"] = _summarize_absent(asked)
    return metrics


def _summarize_absent(examples: list[dict[str, Any]]) -> dict[str, Any]:
    """How often an empty mask says that an object is absent, and how often a present one is found."""

    def reported(rows):
        return {
            "count": len(rows),
            "absent_reported": float(np.mean([row["absent_prediction"] == 0 for row in rows])),
        }

    groups = sorted({row["absent_group"] for row in examples})
    return reported(examples) | {
        "present_found": float(np.mean([row["prediction"] > 0 for row in examples])),
        "groups": {
            group: reported([row for row in examples if row["absent_group"] == group]) for group in groups
        },
    }


def sheet_rows(result: SegmentationResult, source: Source[ScoredExample]) -> list[dict[str, Any]]:
    """Rows of `sheets.segmentation_sheet` for the examples whose probabilities were kept."""
    pairs = zip(result.probabilities, result.examples, strict=False)
    return [sheet_row(source, i, p, row["iou"], result.sampler) for i, (p, row) in enumerate(pairs)]


def sheet_row(
    source: Source[Any], i: int, probability: np.ndarray, iou: float, sampler: SamplerConfig
) -> dict[str, Any]:
    """The sheet row of example i and its prediction, at the resolution of its mask."""
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
