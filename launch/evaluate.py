"""Scores a checkpoint on benchmarks, or on held-out scenes of the data that it learned from.

    python launch/evaluate.py --checkpoint=runs/tiny --split=test --count=512
    python launch/evaluate.py --checkpoint=runs/genmask_l --benchmark=refcoco:unc:testA,reasonseg:val
    python launch/evaluate.py --checkpoint=runs/genmask_l --config=configs/evaluate_refcoco.py

--checkpoint is the --workdir of a training run. The run's own config says how masks are sampled and,
where no --benchmark is given, of what data; another --config (its `sampler`, and its `data` or
`benchmarks`) may say otherwise. Writes metrics.json, a line of JSON for every example and contact sheets
to --workdir. Of a benchmark a line has id, expression, I, U, and the mask as launch/score.py reads it.
"""

import dataclasses
import json
import subprocess
from collections.abc import Sequence

from absl import flags, logging
from etils import epath
from ml_collections import config_flags

import genmask_jax
from genmask_jax import cli, hosts
from genmask_jax.config import EvaluationConfig, SamplerConfig, TrainConfig, from_config_dict
from genmask_jax.data.sources import generate_source, learned_from, segment_source
from genmask_jax.errors import UserError
from genmask_jax.evaluation import no_target
from genmask_jax.evaluation.benchmarks import Benchmark, BenchmarkResult, evaluate_benchmark, parse_benchmarks
from genmask_jax.evaluation.generation import evaluate_generation
from genmask_jax.evaluation.report import print_tables
from genmask_jax.evaluation.segmentation import evaluate_segmentation, sheet_rows
from genmask_jax.evaluation.sheets import generation_sheet, segmentation_sheet
from genmask_jax.evaluation.tables import make_grids, print_grids
from genmask_jax.inference.generator import Generator
from genmask_jax.inference.load import load
from genmask_jax.inference.pictures import RESIZE
from genmask_jax.inference.reasoner import Reasoner, describe_all
from genmask_jax.inference.segmenter import Segmenter
from genmask_jax.sharding import MeshConfig, make_mesh
from genmask_jax.training.checkpoints import read_config

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Directory of a training run.", required=True)
CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Instead of the run's: what to score, and how."
)
STEP = flags.DEFINE_string("step", "last", "last, best, or a step.")
BENCHMARK = flags.DEFINE_list("benchmark", None, "Such as refcoco:unc:testA,reasonseg:val; any number.")
DATA = flags.DEFINE_string("data", None, "The --out of prepare_data.py; the run's data.path when not given.")
CHOOSE_NO_TARGET = flags.DEFINE_bool(
    "choose_no_target", False, "Find the no-target rule that scores best on grefcoco:unc:val."
)
REASON = flags.DEFINE_bool("reason", False, "Let the run's Qwen describe what is asked for; segment that.")
SPLIT = flags.DEFINE_enum("split", "test", ["val", "test"], "Which held-out split, without benchmarks.")
COUNT = flags.DEFINE_integer("count", 512, "How many scenes of it.", lower_bound=1)
NUM_PICTURES = flags.DEFINE_integer("num_pictures", 96, "How many pictures to generate.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Pictures a batch.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Of the noise that sampling starts from.")
FSDP = flags.DEFINE_integer("fsdp", 1, "Devices that the parameters are divided over.", lower_bound=1)
hosts.define_flags()
WORKDIR = flags.DEFINE_string("workdir", None, "Where to write; CHECKPOINT/evaluation_SPLIT when not given.")


def main() -> None:
    config = read_config(TrainConfig, CHECKPOINT.value)
    asked = config
    if CONFIG.value:
        kind = EvaluationConfig if "benchmarks" in CONFIG.value else TrainConfig
        asked = from_config_dict(kind, CONFIG.value)
    names = BENCHMARK.value or getattr(asked, "benchmarks", ())
    if names:
        score_benchmarks(config, asked, names)
    else:
        score_scenes(config, asked)


def score_benchmarks(
    config: TrainConfig, asked: TrainConfig | EvaluationConfig, names: Sequence[str]
) -> None:
    """One checkpoint on all benchmarks, and their tables."""
    root = DATA.value or getattr(asked, "path", "") or config.data.path
    if not root:
        raise UserError("--data is missing: the directory that launch/prepare_data.py made")
    benchmarks, sampler = parse_benchmarks(names, root), asked.sampler
    if CHOOSE_NO_TARGET.value:
        no_target.need_val(benchmarks, sampler)
    reason = REASON.value or getattr(asked, "reason", False)
    # Before the run's own encoder is loaded: one of them is in memory at a time.
    described = describe(config, benchmarks) if reason else {}
    networks, _, step = load(CHECKPOINT.value, STEP.value, make_mesh(MeshConfig(fsdp=FSDP.value)))
    segmenter = Segmenter(networks, sampler, batch_size=BATCH_SIZE.value, seed=SEED.value)
    out = epath.Path(WORKDIR.value or f"{CHECKPOINT.value}/evaluation_benchmarks")
    found, learned = {}, learned_from(dataclasses.replace(config.data, path=str(root)))
    for benchmark in benchmarks:
        known = None if learned is None else len(benchmark.pictures() & learned)
        if known:
            logging.warning("%s: the run learned from %d of its pictures", benchmark.name, known)
        result = evaluate_benchmark(segmenter, benchmark, described=described.get(benchmark.name), keep=24)
        result.metrics["pictures_learned_from"] = known
        found[benchmark.name] = (benchmark.protocol, result.metrics)
        if hosts.is_first():  # each as soon as it is there
            write_benchmark(out, benchmark.name, result)
            record = how(step, sampler) | {"data": str(root), "reason": reason}
            record["benchmarks"] = {name: metrics for name, (_, metrics) in found.items()}
            (out / "metrics.json").write_text(json.dumps(record, indent=2))
            if CHOOSE_NO_TARGET.value:
                no_target.print_choices(no_target.choose_no_target(result.rows))
    if hosts.is_first():
        print_grids(make_grids(found))
        print(f"wrote metrics.json, a file of every example for each benchmark, and contact sheets to {out}")


def describe(config: TrainConfig, benchmarks: Sequence[Benchmark]) -> dict[str, list[str]]:
    """By benchmark, what its questions are after, in the words of the run's Qwen."""
    options = {"dtype": config.compute_dtype, "batch_size": BATCH_SIZE.value, "seed": SEED.value}
    reasoner = Reasoner(config.instruction, epath.Path(CHECKPOINT.value) / "instruction", **options)
    return {b.name: describe_all(reasoner, b.source(config.data.size)) for b in benchmarks}


def write_benchmark(out: epath.Path, name: str, result: BenchmarkResult) -> None:
    """The evidence of one benchmark: a line for each expression, and a contact sheet."""
    out.mkdir(parents=True, exist_ok=True)
    stem = name.replace(":", "_")
    lines = (json.dumps(row, ensure_ascii=False) for row in result.rows)
    (out / f"{stem}.jsonl").write_text("\n".join(lines) + "\n")
    segmentation_sheet(result.sheet, out / f"{stem}.png")


def how(step: int, sampler: SamplerConfig) -> dict:
    """All that changes a score, beside the data."""
    return {
        "checkpoint_step": step,
        "sampler": vars(sampler),
        "seed": SEED.value,
        "batch_size": BATCH_SIZE.value,
        "resize": RESIZE,
        "weights": "ema",
        "version": version(),
    }


def score_scenes(config: TrainConfig, asked: TrainConfig) -> None:
    """Masks and pictures of held-out scenes."""
    if asked.data.size != config.data.size:
        raise UserError(f"--config: data.size {asked.data.size}, but the model takes {config.data.size} px")
    networks, _, step = load(CHECKPOINT.value, STEP.value, make_mesh(MeshConfig(fsdp=FSDP.value)))
    out = epath.Path(WORKDIR.value or f"{CHECKPOINT.value}/evaluation_{SPLIT.value}")
    source = segment_source(asked.data, SPLIT.value, scored=True)
    segmenter = Segmenter(networks, asked.sampler, batch_size=BATCH_SIZE.value, seed=SEED.value)
    result = evaluate_segmentation(segmenter, source, COUNT.value, swapped=True, keep=24)
    metrics = {"split": SPLIT.value, **result.metrics}
    prompts = generate_source(asked.data, SPLIT.value)
    generator = Generator(networks, asked.sampler, batch_size=BATCH_SIZE.value, seed=SEED.value)
    texts = [prompts[i]["text"] for i in range(min(24, NUM_PICTURES.value, len(prompts)))]
    sheets = {"pictures": (generator(texts), texts)}
    if asked.data.name == "refershapes":
        metrics["generation"], pictures, texts = evaluate_generation(generator, prompts, NUM_PICTURES.value)
        sheets["shapes"] = (pictures[:48], texts[:48])
    metrics |= {"data": asked.data.name, **how(step, asked.sampler)}
    if hosts.is_first():
        write(out, metrics, result.examples, sheet_rows(result, source), sheets)


def write(out: epath.Path, metrics: dict, examples: list, masks: list, sheets: dict[str, tuple]) -> None:
    """The files of an evaluation on scenes, and its tables on the terminal."""
    out.mkdir(parents=True, exist_ok=True)
    segmentation_sheet(masks, out / "masks.png")
    for name, (pictures, texts) in sheets.items():
        generation_sheet(pictures, texts, out / f"{name}.png")
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2))
    lines = (json.dumps(example) for example in examples)
    (out / "examples.jsonl").write_text("\n".join(lines) + "\n")
    print_tables(metrics)
    print(f"wrote metrics.json, examples.jsonl and contact sheets to {out}")


def version() -> str:
    """The package's version, with the commit where it runs from a checkout."""
    folder = epath.Path(__file__).parent
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True, check=False
    )
    return f"{genmask_jax.__version__} {done.stdout.strip()}".strip()


if __name__ == "__main__":
    cli.run(main)
