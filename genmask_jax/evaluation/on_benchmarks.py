"""Scores a checkpoint on a list of benchmarks, and prints tables of the scores."""

import dataclasses
from collections.abc import Sequence

from absl import logging

from genmask_jax.config import TrainConfig
from genmask_jax.data.sources import learned_from
from genmask_jax.evaluation import no_target
from genmask_jax.evaluation.benchmarks import (
    Benchmark,
    evaluate_benchmark,
    parse_benchmarks,
    write_benchmark,
    write_record,
)
from genmask_jax.evaluation.descriptions import describe_all
from genmask_jax.evaluation.scoring import Scoring
from genmask_jax.evaluation.tables import make_grids, print_grids
from genmask_jax.inference.reasoner import Reasoner
from genmask_jax.pretrained import directory_of
from genmask_jax.utils import hosts

SHEET_SIZE = 24
"""Number of expressions on a contact sheet."""


def score_benchmarks(
    scoring: Scoring,
    config: TrainConfig,
    names: Sequence[str],
    root: str,
    *,
    reason: bool,
    choose_no_target: bool,
) -> None:
    """Scores all benchmarks, prints their tables and writes metrics, masks and contact sheets.

    Args:
        scoring: the checkpoint and its sampling options.
        config: the run's config.
        names: names of benchmarks, such as "refcoco:unc:testA".
        root: the --out of launch/prepare_data.py.
        reason: segment descriptions of the expressions, written by the run's Qwen.
        choose_no_target: also find the no-target rule with the best gIoU.

    Raises:
        UserError: a benchmark or the checkpoint does not exist, or `choose_no_target` is not allowed on a
            benchmark.
    """
    benchmarks = parse_benchmarks(names, root)
    if choose_no_target:
        no_target.need_val(benchmarks, scoring.sampler)
    out = scoring.make_out("evaluation_benchmarks")
    # Qwen is freed before the run's own encoder is loaded, so that only one of them is in memory.
    descriptions = _describe(scoring, config, benchmarks) if reason else {}
    _, segmenter, record = scoring.open()
    settings = record | {"data": root, "reason": reason}
    training_images = learned_from(dataclasses.replace(config.data, path=root))
    if training_images is None:
        logging.warning(
            "cannot check for training images in the benchmarks: the run's data is not in %s", root
        )
    results = {}
    for benchmark in benchmarks:
        num_trained = _count_training_images(benchmark, training_images)
        result = evaluate_benchmark(
            segmenter, benchmark, descriptions=descriptions.get(benchmark.name), keep=SHEET_SIZE
        )
        result.metrics["images_learned_from"] = num_trained
        results[benchmark.name] = (benchmark.protocol, result.metrics)
        if hosts.is_first():  # write each result as soon as it exists
            write_benchmark(out, benchmark.name, result)
            write_record(out / "metrics.json", benchmark.name, {"metrics": result.metrics, "how": settings})
            if choose_no_target:
                no_target.print_choices(no_target.choose_no_target(no_target.masks_from_rows(result.rows)))
    if hosts.is_first():
        print_grids(make_grids(results))
        print(f"wrote metrics.json, and a .jsonl file and a contact sheet for each benchmark, to {out}")


def _count_training_images(benchmark: Benchmark, training_images: frozenset[str] | None) -> int | None:
    """The number of the benchmark's images that the run was trained on; None if this is unknown."""
    if training_images is None:
        return None
    count = len(benchmark.images() & training_images)
    if count:
        logging.warning("%s: the run was trained on %d of its images", benchmark.name, count)
    return count


def _describe(scoring: Scoring, config: TrainConfig, benchmarks: Sequence[Benchmark]) -> dict[str, list[str]]:
    """Descriptions of each benchmark's expressions, by name of the benchmark, written by the run's Qwen."""
    reasoner = Reasoner(
        config.instruction,
        directory_of(scoring.checkpoint) / "instruction",
        dtype=config.compute_dtype,
        batch_size=scoring.batch_size,
        seed=scoring.seed,
    )
    return {b.name: describe_all(reasoner, b.source(config.data.size)) for b in benchmarks}
