"""Selects the thresholds of the no-target rule on a val split of gRefCOCO or ReferShapes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from genmask_jax.config import SamplerConfig
from genmask_jax.evaluation.benchmarks import Benchmark, Row, row_counts
from genmask_jax.evaluation.metrics import Counts, summarize_grefcoco
from genmask_jax.inference.masks import is_no_target
from genmask_jax.utils.console import console
from genmask_jax.utils.errors import UserError

AREA_THRESHOLDS = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)
"""Shares of the image."""
SCORE_THRESHOLDS = (0.0, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


class ScoredMask(NamedTuple):
    """A mask without the no-target rule: pixel counts, the image's number of pixels, and the mask's score."""

    counts: Counts
    pixels: int
    score: float


def need_val(benchmarks: Sequence[Benchmark], sampler: SamplerConfig) -> None:
    """Raises UserError if thresholds must not be chosen on these benchmarks."""
    for benchmark in benchmarks:
        if benchmark.protocol != "grefcoco" or benchmark.split not in ("train", "val"):
            raise UserError(f"--choose_no_target: choose on a val split of grefcoco, not on {benchmark.name}")
    _need_no_rule(sampler)


def need_val_scenes(data: str, split: str, sampler: SamplerConfig) -> None:
    """Raises UserError if thresholds must not be chosen on this split of a training dataset."""
    if data != "refershapes" or split != "val":
        raise UserError(f"--choose_no_target: choose on --split=val of refershapes, not on {split} of {data}")
    _need_no_rule(sampler)


def _need_no_rule(sampler: SamplerConfig) -> None:
    if sampler.no_target_area or sampler.no_target_score:
        raise UserError("--choose_no_target: add --no_target_area=0 --no_target_score=0")


def masks_from_rows(rows: Sequence[Row]) -> list[ScoredMask]:
    """Returns the masks of a benchmark's rows."""
    return [
        ScoredMask(row_counts(row), row["rle"]["size"][0] * row["rle"]["size"][1], row["score"])
        for row in rows
    ]


def masks_from_examples(examples: Sequence[dict[str, Any]]) -> list[ScoredMask]:
    """Returns the masks of the present and the absent object of each of `SegmentationResult.examples`."""
    masks = []
    for row in examples:
        present = Counts(row["intersection"], row["union"], row["prediction"])
        absent = Counts(0, row["absent_prediction"], row["absent_prediction"], no_target=True)
        masks.append(ScoredMask(present, row["pixels"], row["score"]))
        masks.append(ScoredMask(absent, row["pixels"], row["absent_score"]))
    return masks


def choose_no_target(masks: Sequence[ScoredMask]) -> list[dict[str, Any]]:
    """Returns the metrics of gRefCOCO for each pair of thresholds, sorted by gIoU, the best first."""
    choices = []
    for area in AREA_THRESHOLDS:
        for score in SCORE_THRESHOLDS:
            rule = SamplerConfig(no_target_area=area, no_target_score=score)
            summary = summarize_grefcoco([_apply(rule, mask) for mask in masks])
            choices.append({"no_target_area": area, "no_target_score": score, **summary})
    # Ties are resolved in favour of the lower thresholds.
    return sorted(choices, key=lambda x: (-x["gIoU"], x["no_target_area"], x["no_target_score"]))


def _apply(rule: SamplerConfig, mask: ScoredMask) -> Counts:
    counts = mask.counts
    if is_no_target(counts.prediction, mask.pixels, mask.score, rule):
        # The prediction becomes empty, so the union is the true mask: |truth| = U + I - |prediction|.
        truth = counts.union + counts.intersection - counts.prediction
        return Counts(0, truth, 0, counts.no_target)
    return counts


def print_choices(choices: Sequence[dict[str, Any]], count: int = 8) -> None:
    """Prints the best choices, and the flags of the best one."""
    columns = ("no_target_area", "no_target_score", "gIoU", "cIoU", "N-acc", "T-acc")
    table = Table(title="no-target rules by gIoU", title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="right")
    for choice in choices[:count]:
        values = (choice[name] for name in columns)
        table.add_row(*("-" if v is None else f"{v:.4f}" for v in values))
    console().print(table)
    best = choices[0]
    fields = ("no_target_area", "no_target_score")
    print("use it with " + " ".join(f"--{name}={best[name]}" for name in fields))
