"""Scores a checkpoint on held-out scenes.

    python launch/evaluate.py --checkpoint=runs/tiny --split=test --count=512

--checkpoint is the --workdir of a training run. The run's own config says what is scored and how masks are
sampled; another --config (its `data` and `sampler`) may say otherwise. Writes metrics.json, examples.jsonl
(every example's intersection and union) and contact sheets to --workdir.
"""

import json
import subprocess

from absl import flags
from etils import epath
from ml_collections import config_flags

import genmask_jax
from genmask_jax import cli, hosts
from genmask_jax.config import TrainConfig, from_config_dict
from genmask_jax.data.sources import generate_source, segment_source
from genmask_jax.errors import UserError
from genmask_jax.evaluation.generation import evaluate_generation
from genmask_jax.evaluation.report import print_tables
from genmask_jax.evaluation.segmentation import evaluate_segmentation, sheet_rows
from genmask_jax.evaluation.sheets import generation_sheet, segmentation_sheet
from genmask_jax.inference.generator import Generator
from genmask_jax.inference.load import load
from genmask_jax.inference.pictures import RESIZE
from genmask_jax.inference.segmenter import Segmenter
from genmask_jax.sharding import MeshConfig, make_mesh

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Directory of a training run.", required=True)
CONFIG = config_flags.DEFINE_config_file("config", help_string="Instead of the run's: its data and sampler.")
STEP = flags.DEFINE_string("step", "last", "last, best, or a step.")
SPLIT = flags.DEFINE_enum("split", "test", ["val", "test"], "Which held-out split.")
COUNT = flags.DEFINE_integer("count", 512, "How many scenes.", lower_bound=1)
NUM_PICTURES = flags.DEFINE_integer("num_pictures", 96, "How many pictures to generate.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Pictures a batch.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Of the noise that sampling starts from.")
FSDP = flags.DEFINE_integer("fsdp", 1, "Devices that the parameters are divided over.", lower_bound=1)
hosts.define_flags()
WORKDIR = flags.DEFINE_string("workdir", None, "Where to write; CHECKPOINT/evaluation_SPLIT when not given.")


def main() -> None:
    mesh = make_mesh(MeshConfig(fsdp=FSDP.value))
    networks, config, step = load(CHECKPOINT.value, STEP.value, mesh)
    asked = from_config_dict(TrainConfig, CONFIG.value) if CONFIG.value else config
    if asked.data.size != config.data.size:
        raise UserError(f"--config: data.size {asked.data.size}, but the model takes {config.data.size} px")
    out = epath.Path(WORKDIR.value or f"{CHECKPOINT.value}/evaluation_{SPLIT.value}")
    source = segment_source(asked.data, SPLIT.value)
    segmenter = Segmenter(networks, asked.sampler, batch_size=BATCH_SIZE.value, seed=SEED.value)
    result = evaluate_segmentation(segmenter, source, COUNT.value, swapped=True, keep=24)
    metrics = {"split": SPLIT.value, **result.metrics, "checkpoint_step": step}
    prompts = generate_source(asked.data, SPLIT.value)
    generator = Generator(networks, asked.sampler, batch_size=BATCH_SIZE.value, seed=SEED.value)
    texts = [prompts[i]["text"] for i in range(min(24, NUM_PICTURES.value))]
    sheets = {"pictures": (generator(texts), texts)}
    if asked.data.name == "refershapes":
        metrics["generation"], pictures, texts = evaluate_generation(generator, prompts, NUM_PICTURES.value)
        sheets["shapes"] = (pictures[:48], texts[:48])
    metrics |= {
        "data": asked.data.name,
        "sampler": vars(asked.sampler),
        "seed": SEED.value,
        "batch_size": BATCH_SIZE.value,
        "resize": RESIZE,
        "weights": "ema",
        "version": version(),
    }
    if hosts.is_first():
        write(out, metrics, result.examples, sheet_rows(result, source), sheets)


def write(out: epath.Path, metrics: dict, examples: list, masks: list, sheets: dict[str, tuple]) -> None:
    """The files of an evaluation, and its tables on the terminal."""
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
