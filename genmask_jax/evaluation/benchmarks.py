"""Benchmarks: prepared splits with the protocol that scores them, for a model or for given predictions.

A prediction is a mask at the image's own resolution. All scores are computed from `Counts`, and all tables
from the rows that are saved, one per expression, so that anyone can recompute them.
"""

import dataclasses
import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from tqdm import tqdm

from genmask_jax.data import masks
from genmask_jax.data.prepared import records
from genmask_jax.data.prepared.builders import BUILDERS, ImagesBuilder, image_name
from genmask_jax.data.prepared.source import PreparedBenchmark
from genmask_jax.evaluation.metrics import PROTOCOLS, Counts, count_pixels
from genmask_jax.evaluation.segmentation import read_batches, sheet_row
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.inference.masks import to_mask
from genmask_jax.sharding import part_of_batch
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.hosts import gather_arrays, gather_rows, is_first
from genmask_jax.utils.paths import write_text
from genmask_jax.utils.sheets import segmentation_sheet

Row = dict[str, Any]
"""One expression: id, expression, I, U, prediction (its area), no_target, rle; and a model's score."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One split of a prepared dataset.

    name: such as "refcoco:unc:testA".
    protocol: a key of `metrics.PROTOCOLS`.
    directory, split: where it is.
    """

    name: str
    protocol: str
    directory: str
    split: str

    def items(self) -> records.Items:
        """Its expressions: all of them, but for ReasonSeg only the first of each image."""
        first_only = self.protocol == "reasonseg"
        return records.Items(self.directory, self.split, "expressions", first_only=first_only)

    def images(self) -> set[str]:
        """The names of its images: those of COCO begin with "coco:"."""
        ids = records.read_index(self.directory, self.split).image_ids
        return {image_name(self.name.split(":")[0], image_id) for image_id in ids}

    def source(self, size: int) -> PreparedBenchmark:
        """Its expressions as examples to be scored, with square images of side `size`."""
        return PreparedBenchmark(self.items(), size)


def open_benchmark(root: epath.PathLike, name: str, split: str) -> Benchmark:
    """Opens a split of the dataset `name` (or of the only one there) under `root`.

    Raises:
        UserError: it does not exist or has no expressions.
    """
    directory = records.find(root, name, split)
    builder = records.open_dataset(directory)
    config = builder.builder_config
    parts = [builder.name, *([config.name] if config and config.name != "default" else []), split]
    benchmark = Benchmark(
        ":".join(parts), BUILDERS.get(builder.name, ImagesBuilder).protocol, directory, split
    )
    if not len(benchmark.items()):
        raise UserError(f"{directory}: the split {split} has no expressions")
    return benchmark


def parse_benchmarks(names: Sequence[str], root: epath.PathLike) -> list[Benchmark]:
    """Opens benchmarks by names such as "refcoco:unc:testA" or "reasonseg:val". Raises UserError."""
    found = []
    for name in names:
        data, _, split = name.rpartition(":")
        if not data or not split:
            raise UserError(f"--benchmark={name}: name the dataset and the split, such as reasonseg:val")
        found.append(open_benchmark(root, data, split))
    return found


def make_row(asked: records.ReferringExpression, prediction: np.ndarray) -> Row:
    """The row of one expression. `prediction`: bool [H, W] at the mask's resolution."""
    counts = count_pixels(prediction, asked.mask, asked.no_target)
    return {
        "id": asked.id,
        "expression": asked.text,
        "I": counts.intersection,
        "U": counts.union,
        "prediction": counts.prediction,
        "no_target": counts.no_target,
        "rle": {"size": list(asked.mask.shape), "counts": masks.encode(prediction)},
    }


def row_counts(row: Row) -> Counts:
    """The four numbers that metrics are computed from."""
    return Counts(row["I"], row["U"], row["prediction"], row["no_target"])


def summarize_rows(protocol: str, rows: Sequence[Row]) -> dict[str, Any]:
    """The metrics of a benchmark, by their published names, as fractions."""
    return PROTOCOLS[protocol]([row_counts(row) for row in rows])


@dataclasses.dataclass(frozen=True)
class BenchmarkResult:
    """Metrics, one row per expression, and the rows of a contact sheet."""

    metrics: dict[str, Any]
    rows: list[Row]
    sheet: list[dict[str, Any]]


def evaluate_benchmark(
    segmenter: MaskSampler, benchmark: Benchmark, *, described: Sequence[str] | None = None, keep: int = 0
) -> BenchmarkResult:
    """Scores a model. Hosts share the expressions, and each returns the whole result.

    An expression's noise depends on its id, so that the order of the records does not matter.

    Args:
        segmenter: the model; images are resized to its size.
        benchmark: what to score it on.
        described: texts to segment instead of the expressions.
        keep: how many expressions, evenly spaced, to show on the contact sheet.
    """
    source = benchmark.source(segmenter.networks.size)
    part, size = part_of_batch(segmenter.networks.mesh), segmenter.networks.size
    scored: dict[int, Row] = {}
    shown = np.linspace(0, len(source) - 1, min(keep, len(source))).astype(int).tolist()
    kept = np.zeros((len(shown), size, size), np.float16)
    batches = read_batches(source, len(source), segmenter.batch_size, part)
    count = -(-len(source) // (segmenter.batch_size * part[1]))
    for indices, real, batch in tqdm(batches, benchmark.name, count, disable=not is_first(), unit=" batches"):
        texts: list[str] = [example["text"] for example in batch]
        if described is not None:
            texts = [described[int(i)] for i in indices]
        numbers = [zlib.crc32(example["id"].encode()) for example in batch]
        probabilities = segmenter(np.stack([example["image"] for example in batch]), texts, numbers)
        for n, i in enumerate(indices.tolist()[:real]):
            scored[i] = _score(batch[n], probabilities[n], segmenter)
            if described is not None:
                scored[i]["described"] = texts[n]
            if i in shown:
                kept[shown.index(i)] = probabilities[n]
    rows, pairs = gather_rows(scored), zip(shown, gather_arrays(kept), strict=True)
    sheet = [sheet_row(source, i, p, _shown_iou(rows[i]), segmenter.sampler) for i, p in pairs]
    return BenchmarkResult(summarize_rows(benchmark.protocol, rows), rows, sheet)


def _score(example: Any, probability: np.ndarray, segmenter: MaskSampler) -> Row:
    asked = example["expression"]
    mask, score = to_mask(probability, asked.mask.shape, segmenter.sampler)
    return make_row(asked, mask) | {"score": score}


def _shown_iou(row: Row) -> float:
    """A row's IoU for display: 1 if both masks are empty."""
    return row["I"] / row["U"] if row["U"] else 1.0


def write_benchmark(out: epath.Path, name: str, result: BenchmarkResult) -> None:
    """Writes the evidence of one benchmark: one line per expression, and a contact sheet."""
    stem = name.replace(":", "_")
    lines = (json.dumps(row, ensure_ascii=False) for row in result.rows)
    write_text(out / f"{stem}.jsonl", "\n".join(lines) + "\n")
    segmentation_sheet(result.sheet, out / f"{stem}.png")


def write_record(path: epath.Path, name: str, record: dict[str, Any]) -> None:
    """Adds a benchmark's metrics, and how they were computed, to those of other benchmarks in the file."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        found = {}
    write_text(path, json.dumps((found if isinstance(found, dict) else {}) | {name: record}, indent=2))
