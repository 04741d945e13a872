"""Benchmarks: prepared splits and the protocols that score them.

A prediction is a mask at the image's own resolution. One row per expression is saved, with its `Counts`; all
metrics and tables are computed from these rows and can be recomputed from the saved file.
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
"""One expression: id, expression, I, U, prediction (area in pixels), no_target, rle; score for a model."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One split of a prepared dataset.

    name: a name such as "refcoco:unc:testA".
    protocol: a key of `metrics.PROTOCOLS`.
    directory: directory of the prepared dataset.
    split: name of the split.
    """

    name: str
    protocol: str
    directory: str
    split: str

    def items(self) -> records.Items:
        """The expressions of the split; for ReasonSeg, only the first of each image."""
        first_only = self.protocol == "reasonseg"
        return records.Items(self.directory, self.split, "expressions", first_only=first_only)

    def images(self) -> set[str]:
        """The names of the images; names of COCO images begin with "coco:"."""
        ids = records.read_index(self.directory, self.split).image_ids
        return {image_name(self.name.split(":")[0], image_id) for image_id in ids}

    def source(self, size: int) -> PreparedBenchmark:
        """The expressions as examples to score, with square images of side `size`."""
        return PreparedBenchmark(self.items(), size)


def open_benchmark(root: epath.PathLike, name: str, split: str) -> Benchmark:
    """Opens a split of the dataset `name` under `root`; "" is the only dataset there.

    Raises:
        UserError: the split does not exist or has no expressions.
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
    benchmarks = []
    for name in names:
        dataset, _, split = name.rpartition(":")
        if not dataset or not split:
            raise UserError(f"--benchmark={name}: give the dataset and the split, such as reasonseg:val")
        benchmarks.append(open_benchmark(root, dataset, split))
    return benchmarks


def make_row(expression: records.ReferringExpression, prediction: np.ndarray) -> Row:
    """Returns the row of one expression. `prediction`: bool [H, W] at the mask's resolution."""
    counts = count_pixels(prediction, expression.mask, expression.no_target)
    return {
        "id": expression.id,
        "expression": expression.text,
        "I": counts.intersection,
        "U": counts.union,
        "prediction": counts.prediction,
        "no_target": counts.no_target,
        "rle": {"size": list(expression.mask.shape), "counts": masks.encode(prediction)},
    }


def row_counts(row: Row) -> Counts:
    """Returns the pixel counts of a row."""
    return Counts(row["I"], row["U"], row["prediction"], row["no_target"])


def summarize_rows(protocol: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Returns the metrics of a benchmark as fractions, by their published names."""
    return PROTOCOLS[protocol]([row_counts(row) for row in rows])


@dataclasses.dataclass(frozen=True)
class BenchmarkResult:
    """Metrics, one row per expression, and the rows of a contact sheet."""

    metrics: dict[str, Any]
    rows: list[Row]
    sheet: list[dict[str, Any]]


def evaluate_benchmark(
    segmenter: MaskSampler, benchmark: Benchmark, *, descriptions: Sequence[str] | None = None, keep: int = 0
) -> BenchmarkResult:
    """Scores a model. Hosts share the expressions, and each host returns the complete result.

    The noise of an expression depends on its id, so that the order of the records does not matter.

    Args:
        segmenter: the model; images are resized to its size.
        benchmark: the expressions to score.
        descriptions: one text per expression, to segment instead of the expressions.
        keep: number of expressions on the contact sheet, evenly spaced.
    """
    size, part = segmenter.networks.size, part_of_batch(segmenter.networks.mesh)
    source = benchmark.source(size)
    rows_by_index: dict[int, Row] = {}
    sheet_indices = np.linspace(0, len(source) - 1, min(keep, len(source))).astype(int).tolist()
    sheet_probabilities = np.zeros((len(sheet_indices), size, size), np.float16)
    batches = read_batches(source, len(source), segmenter.batch_size, part)
    count = -(-len(source) // (segmenter.batch_size * part[1]))
    for indices, valid, batch in tqdm(
        batches, benchmark.name, count, disable=not is_first(), unit=" batches"
    ):
        texts: list[str] = [example["text"] for example in batch]
        if descriptions is not None:
            texts = [descriptions[int(i)] for i in indices]
        noise_indices = [zlib.crc32(example["id"].encode()) for example in batch]
        probabilities = segmenter(np.stack([example["image"] for example in batch]), texts, noise_indices)
        for n, i in enumerate(indices.tolist()[:valid]):
            rows_by_index[i] = _score(batch[n], probabilities[n], segmenter)
            if descriptions is not None:
                rows_by_index[i]["described"] = texts[n]
            if i in sheet_indices:
                sheet_probabilities[sheet_indices.index(i)] = probabilities[n]
    rows = gather_rows(rows_by_index)
    pairs = zip(sheet_indices, gather_arrays(sheet_probabilities), strict=True)
    sheet = [sheet_row(source, i, p, _sheet_iou(rows[i]), segmenter.sampler) for i, p in pairs]
    return BenchmarkResult(summarize_rows(benchmark.protocol, rows), rows, sheet)


def _score(example: Any, probability: np.ndarray, segmenter: MaskSampler) -> Row:
    expression = example["expression"]
    mask, score = to_mask(probability, expression.mask.shape, segmenter.sampler)
    return make_row(expression, mask) | {"score": score}


def _sheet_iou(row: Row) -> float:
    """A row's IoU on the contact sheet: 1 if both masks are empty."""
    return row["I"] / row["U"] if row["U"] else 1.0


def write_benchmark(out: epath.Path, name: str, result: BenchmarkResult) -> None:
    """Writes the rows of one benchmark as JSON lines, and its contact sheet."""
    stem = name.replace(":", "_")
    lines = (json.dumps(row, ensure_ascii=False) for row in result.rows)
    write_text(out / f"{stem}.jsonl", "\n".join(lines) + "\n")
    segmentation_sheet(result.sheet, out / f"{stem}.png")


def write_record(path: epath.Path, name: str, record: dict[str, Any]) -> None:
    """Adds a benchmark's metrics and settings to the file; entries of other benchmarks are preserved."""
    try:
        entries = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        entries = {}
    write_text(path, json.dumps((entries if isinstance(entries, dict) else {}) | {name: record}, indent=2))
