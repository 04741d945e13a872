"""Scores a checkpoint on a list of benchmarks, and prints tables of its scores."""

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
        scoring: which checkpoint to score, and how.
        config: the run's config.
        names: names of benchmarks, such as "refcoco:unc:testA".
        root: the --out of launch/prepare_data.py.
        reason: whether the run's Qwen first describes what each expression asks for.
        choose_no_target: whether to find the no-target rule with the best gIoU.

    Raises:
        UserError: a benchmark or the checkpoint does not exist, or a rule may not be chosen on a benchmark.
    """
    benchmarks = parse_benchmarks(names, root)
    if choose_no_target:
        no_target.need_val(benchmarks, scoring.sampler)
    out = scoring.make_out("evaluation_benchmarks")
    # Before the run's own encoder is loaded: only one of them is in memory at a time.
    described = _describe(scoring, config, benchmarks) if reason else {}
    _, segmenter, record = scoring.open()
    found, learned = {}, learned_from(dataclasses.replace(config.data, path=root))
    if learned is None:
        logging.warning(
            "cannot tell whether the run was trained on these images: its datasets are not in %s", root
        )
    for benchmark in benchmarks:
        known = None if learned is None else len(benchmark.images() & learned)
        if known:
            logging.warning("%s: the run was trained on %d of its images", benchmark.name, known)
        result = evaluate_benchmark(segmenter, benchmark, described=described.get(benchmark.name), keep=24)
        result.metrics["images_learned_from"] = known
        found[benchmark.name] = (benchmark.protocol, result.metrics)
        if hosts.is_first():  # write each as soon as it is done
            write_benchmark(out, benchmark.name, result)
            how = record | {"data": root, "reason": reason}
            write_record(out / "metrics.json", benchmark.name, {"metrics": result.metrics, "how": how})
            if choose_no_target:
                no_target.print_choices(no_target.choose_no_target(no_target.found_in_rows(result.rows)))
    if hosts.is_first():
        print_grids(make_grids(found))
        print(f"wrote metrics.json, and a .jsonl file and a contact sheet for each benchmark, to {out}")


def _describe(scoring: Scoring, config: TrainConfig, benchmarks: Sequence[Benchmark]) -> dict[str, list[str]]:
    """By benchmark, what its expressions ask for, as described by the run's Qwen."""
    reasoner = Reasoner(
        config.instruction,
        directory_of(scoring.checkpoint) / "instruction",
        dtype=config.compute_dtype,
        batch_size=scoring.batch_size,
        seed=scoring.seed,
    )
    return {b.name: describe_all(reasoner, b.source(config.data.size)) for b in benchmarks}
