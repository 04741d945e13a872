"""Chooses the thresholds at which a mask counts as "no target", on a val split of gRefCOCO."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from genmask_jax.config import SamplerConfig
from genmask_jax.console import console
from genmask_jax.errors import UserError
from genmask_jax.evaluation.benchmarks import Benchmark, Row, summarize_rows
from genmask_jax.inference.masks import is_no_target

AREAS = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)
"""Shares of the image."""
SCORES = (0.0, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def need_val(benchmarks: Sequence[Benchmark], sampler: SamplerConfig) -> None:
    """Raises UserError when thresholds may not, or cannot, be chosen on these benchmarks."""
    for benchmark in benchmarks:
        if benchmark.protocol != "grefcoco" or benchmark.split not in ("train", "val"):
            raise UserError(f"--choose_no_target: choose on a val split of grefcoco, not on {benchmark.name}")
    if sampler.no_target_area or sampler.no_target_score:
        raise UserError("--choose_no_target: give --no_target_area=0 --no_target_score=0 with it")


def choose_no_target(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The metrics with each pair of thresholds, the best gIoU first.

    Args:
        rows: those of a split that thresholds may be chosen on, scored without thresholds.
    """
    found = []
    for area in AREAS:
        for score in SCORES:
            rule = SamplerConfig(no_target_area=area, no_target_score=score)
            summary = summarize_rows("grefcoco", [_apply(rule, row) for row in rows])
            found.append({"no_target_area": area, "no_target_score": score, **summary})
    # Break ties by the lower thresholds.
    return sorted(found, key=lambda x: (-x["gIoU"], x["no_target_area"], x["no_target_score"]))


def _apply(rule: SamplerConfig, row: Row) -> Row:
    height, width = row["rle"]["size"]
    if is_no_target(row["prediction"], height * width, row["score"], rule):
        # The prediction becomes empty, so the union is the truth: |truth| = U + I - |prediction|.
        return row | {"I": 0, "U": row["U"] + row["I"] - row["prediction"], "prediction": 0}
    return row


def print_choices(choices: Sequence[dict[str, Any]], count: int = 8) -> None:
    """Prints the best choices, and the flags that set the best one."""
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
