"""Scores a checkpoint on benchmarks, or on held-out scenes of the data that it learned from.

    python launch/evaluate.py --checkpoint=runs/tiny --split=test --count=512
    python launch/evaluate.py --checkpoint=runs/genmask_l --benchmark=refcoco:unc:testA,reasonseg:val
    python launch/evaluate.py --checkpoint=runs/genmask_l --config=configs/evaluate_refcoco.py

--checkpoint is the --workdir of a training run. The run's own config says how masks are sampled and,
where no --benchmark is given, of what data; a --config may name benchmarks (configs/evaluate_*.py), or be
another training config, whose `data` and `sampler` are then used. Writes metrics.json, a line of JSON for
every example and contact sheets to --workdir. Of a benchmark a line has id, expression, I, U, and the mask
as launch/score.py reads it.
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
from genmask_jax.config import (
    EvaluationConfig,
    SamplerConfig,
    TrainConfig,
    from_config_dict,
    with_given,
)
from genmask_jax.data.sources import generate_source, learned_from, segment_source
from genmask_jax.errors import UserError
from genmask_jax.evaluation import no_target
from genmask_jax.evaluation.benchmarks import (
    Benchmark,
    evaluate_benchmark,
    parse_benchmarks,
    write_benchmark,
    write_record,
)
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
DATA = flags.DEFINE_string("data", None, "The --out of prepare_data.py; the config's when not given.")
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
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where to write; CHECKPOINT/evaluation_SPLIT or evaluation_benchmarks when not given."
)
MASK_THRESHOLD = flags.DEFINE_float("mask_threshold", None, "Probability above which a pixel is in the mask.")
MASK_STEPS = flags.DEFINE_integer("mask_steps", None, "Passes for a mask.", lower_bound=1)
MASK_SAMPLES = flags.DEFINE_integer("mask_samples", None, "Noises whose masks are averaged.", lower_bound=1)
NO_TARGET_AREA = flags.DEFINE_float("no_target_area", None, "Masks of at most that share are none.")
NO_TARGET_SCORE = flags.DEFINE_float("no_target_score", None, "Masks of a lower mean probability are none.")


def main() -> None:
    config = read_config(TrainConfig, CHECKPOINT.value)
    asked = config
    if CONFIG.value:
        kind = EvaluationConfig if "benchmarks" in CONFIG.value else TrainConfig
        asked = from_config_dict(kind, CONFIG.value)
    names = BENCHMARK.value or getattr(asked, "benchmarks", ())
    sampler = sampler_of(asked if isinstance(asked, TrainConfig) else config)
    if names:
        score_benchmarks(config, asked, names, sampler)
    elif REASON.value or CHOOSE_NO_TARGET.value:
        raise UserError("--reason and --choose_no_target are for benchmarks; add --benchmark")
    else:
        score_scenes(config, asked, sampler)


def sampler_of(config: TrainConfig) -> SamplerConfig:
    """How masks are sampled: as a config says, but for what flags say."""
    return with_given(
        config.sampler,
        mask_threshold=MASK_THRESHOLD.value,
        mask_steps=MASK_STEPS.value,
        mask_samples=MASK_SAMPLES.value,
        no_target_area=NO_TARGET_AREA.value,
        no_target_score=NO_TARGET_SCORE.value,
    )


def score_benchmarks(
    config: TrainConfig, asked: TrainConfig | EvaluationConfig, names: Sequence[str], sampler: SamplerConfig
) -> None:
    """One checkpoint on all benchmarks, and their tables."""
    theirs = asked.data.path if isinstance(asked, TrainConfig) else asked.path
    root = DATA.value or theirs or config.data.path
    if not root:
        raise UserError("--data is missing: the directory that launch/prepare_data.py made")
    benchmarks, reason = parse_benchmarks(names, root), REASON.value or getattr(asked, "reason", False)
    if CHOOSE_NO_TARGET.value:
        no_target.need_val(benchmarks, sampler)
    out = make_out(f"{CHECKPOINT.value}/evaluation_benchmarks")
    # Before the run's own encoder is loaded: one of them is in memory at a time.
    described = describe(config, benchmarks) if reason else {}
    networks, _, step = load(CHECKPOINT.value, STEP.value, make_mesh(MeshConfig(fsdp=FSDP.value)))
    segmenter = Segmenter(networks, sampler, batch_size=BATCH_SIZE.value, seed=SEED.value)
    found, learned = {}, learned_from(dataclasses.replace(config.data, path=str(root)))
    if learned is None:
        logging.warning(
            "whether the run learned from these pictures is not known: its data are not in %s", root
        )
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
            write_record(out / "metrics.json", benchmark.name, {"metrics": result.metrics, "how": record})
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


def make_out(default: str) -> epath.Path:
    """Where the first host writes, made before anything takes long. Raises UserError on every host."""
    path, failed = epath.Path(WORKDIR.value or default), None
    if hosts.is_first():
        try:
            cli.make_directory(path, "--workdir")
        except UserError as error:
            failed = error
    if hosts.any_host(failed is not None):
        raise failed or UserError("--workdir: the first host cannot make it")
    return path


def how(step: int, sampler: SamplerConfig) -> dict:
    """All that changes a score, beside the data."""
    return {
        "checkpoint": str(epath.Path(CHECKPOINT.value).resolve()),
        "checkpoint_step": step,
        "sampler": vars(sampler),
        "seed": SEED.value,
        "batch_size": BATCH_SIZE.value,
        "resize": RESIZE,
        "weights": "ema",
        "version": version(),
    }


def score_scenes(config: TrainConfig, asked: TrainConfig, sampler: SamplerConfig) -> None:
    """Masks and pictures of held-out scenes."""
    if asked.data.size != config.data.size:
        raise UserError(f"--config: data.size {asked.data.size}, but the model takes {config.data.size} px")
    source = segment_source(asked.data, SPLIT.value, scored=True)
    prompts = generate_source(asked.data, SPLIT.value)
    out = make_out(f"{CHECKPOINT.value}/evaluation_{SPLIT.value}")
    networks, _, step = load(CHECKPOINT.value, STEP.value, make_mesh(MeshConfig(fsdp=FSDP.value)))
    segmenter = Segmenter(networks, sampler, batch_size=BATCH_SIZE.value, seed=SEED.value)
    result = evaluate_segmentation(segmenter, source, COUNT.value, swapped=True, keep=24)
    metrics = {"split": SPLIT.value, **result.metrics}
    generator = Generator(networks, sampler, batch_size=BATCH_SIZE.value, seed=SEED.value)
    texts = [prompts[i]["text"] for i in range(min(24, NUM_PICTURES.value, len(prompts)))]
    sheets = {"pictures": (generator(texts), texts)}
    if asked.data.name == "refershapes":
        metrics["generation"], pictures, texts = evaluate_generation(generator, prompts, NUM_PICTURES.value)
        sheets["shapes"] = (pictures[:48], texts[:48])
    metrics |= {"data": asked.data.name, **how(step, sampler)}
    if hosts.is_first():
        write(out, metrics, result.examples, sheet_rows(result, source), sheets)


def write(out: epath.Path, metrics: dict, examples: list, masks: list, sheets: dict[str, tuple]) -> None:
    """The files of an evaluation on scenes, and its tables on the terminal."""
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
