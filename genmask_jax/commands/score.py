"""Scores the predictions of any model on a benchmark, with the benchmark's protocol.

    python launch/score.py --benchmark=data/refcoco/unc:testA --predictions=testA.jsonl
    python launch/score.py --benchmark=data/reasonseg:val --predictions=masks --format=latex

--predictions is a file with lines {"id": ..., "rle": {"size": [H, W], "counts": "..."}}, or a folder of
ID.png files, nonzero inside the mask. Masks have the image's own resolution; an empty mask means "no target".
The id is the sent_id in the RefCOCO family and gRefCOCO, and the image file's stem in ReasonSeg. Prints a
table and a last line of JSON with the metrics as fractions.
"""

import json

from absl import flags

from genmask_jax import cli
from genmask_jax.utils.errors import UserError

BENCHMARK = flags.DEFINE_string("benchmark", None, "DIR:SPLIT; DIR is a prepared dataset.", required=True)
PREDICTIONS = flags.DEFINE_string("predictions", None, "JSON-lines file or folder of PNGs.", required=True)
FORMAT = flags.DEFINE_enum("format", "papers", ["papers", "json", "latex"], "Format of the table.")


def main() -> None:
    from genmask_jax.evaluation.benchmarks import open_benchmark, summarize_rows
    from genmask_jax.evaluation.predictions import score_predictions
    from genmask_jax.evaluation.tables import make_grids, print_grids, to_latex

    directory, _, split = BENCHMARK.value.rpartition(":")
    if not directory or not split:
        raise UserError(f"--benchmark={BENCHMARK.value}: give DIR:SPLIT, such as data/refcoco/unc:testA")
    benchmark = open_benchmark(directory, "", split)
    metrics = summarize_rows(benchmark.protocol, score_predictions(benchmark, PREDICTIONS.value))
    grids = make_grids({benchmark.name: (benchmark.protocol, metrics)})
    if FORMAT.value == "papers":
        print_grids(grids)
    elif FORMAT.value == "latex":
        print("\n\n".join(map(to_latex, grids)))
    print(json.dumps({"benchmark": benchmark.name, **metrics}))


def start() -> None:
    """The command."""
    cli.run(main)


if __name__ == "__main__":
    start()
