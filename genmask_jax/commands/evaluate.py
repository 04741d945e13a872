"""Scores a checkpoint on benchmarks, or on held-out examples of the data it was trained on.

    python launch/evaluate.py --checkpoint=runs/tiny --split=test --count=512
    python launch/evaluate.py --checkpoint=runs/genmask_l --benchmark=refcoco:unc:testA,reasonseg:val
    python launch/evaluate.py --checkpoint=runs/genmask_l --config=configs/evaluate_refcoco.py

--checkpoint is the --workdir of a training run, a packed model, or the name of a model in the package, such
as refershapes. Its config says how masks are sampled and, without --benchmark, which data to score. --config
may name benchmarks (configs/evaluate_*.py), or be another training config, whose `data` and `sampler` are
then used. Writes metrics.json, one line of JSON per example and contact sheets to --workdir. For a benchmark,
a line has id, expression, I, U, and the mask as launch/score.py reads it. ReferShapes is also asked for
objects that its scenes do not contain (docs/benchmarks.md).
"""

from typing import Any

from absl import flags
from ml_collections import config_flags

from genmask_jax import cli
from genmask_jax.pretrained import directory_of
from genmask_jax.utils.errors import UserError

CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Directory of a trained model, or a name such as refershapes.", required=True
)
CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="What to score and how, instead of the run's own config."
)
STEP = flags.DEFINE_string("step", "last", "last, best, or a step.")
BENCHMARK = flags.DEFINE_list("benchmark", None, "Such as refcoco:unc:testA,reasonseg:val; any number.")
DATA = flags.DEFINE_string("data", None, "The --out of prepare_data.py; the config's by default.")
CHOOSE_NO_TARGET = flags.DEFINE_bool(
    "choose_no_target",
    False,
    "Find the no-target rule with the best gIoU, on grefcoco:unc:val or on ReferShapes with --split=val.",
)
REASON = flags.DEFINE_bool("reason", False, "Let the run's Qwen describe what is asked for; segment that.")
SPLIT = flags.DEFINE_enum(
    "split",
    "test",
    ["val", "test", "hand_drawn"],
    "Held-out split, without benchmarks; hand_drawn is of ReferShapes alone.",
)
COUNT = flags.DEFINE_integer("count", 512, "Examples of the split.", lower_bound=1)
NUM_IMAGES = flags.DEFINE_integer("num_images", 96, "Images to generate.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Images per batch.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Of the noise that sampling starts from.")
FSDP = flags.DEFINE_integer("fsdp", 1, "Devices that the parameters are sharded over.", lower_bound=1)
cli.define_host_flags()
WORKDIR = flags.DEFINE_string(
    "workdir", "", "Where to write; CHECKPOINT/evaluation_SPLIT or evaluation_benchmarks by default."
)
MASK_THRESHOLD = flags.DEFINE_float("mask_threshold", None, "Probability above which a pixel is in the mask.")
MASK_STEPS = flags.DEFINE_integer("mask_steps", None, "Passes per mask.", lower_bound=1)
MASK_SAMPLES = flags.DEFINE_integer("mask_samples", None, "Noises whose masks are averaged.", lower_bound=1)
IMAGE_STEPS = flags.DEFINE_integer("image_steps", None, "Sampling steps per image.", lower_bound=1)
GUIDANCE_SCALE = flags.DEFINE_float("guidance_scale", None, "Classifier-free guidance scale; 1 is none.")
NO_TARGET_AREA = flags.DEFINE_float("no_target_area", None, "A mask of at most this share is empty.")
NO_TARGET_SCORE = flags.DEFINE_float("no_target_score", None, "A mask of a lower mean probability is empty.")


def main() -> None:
    from genmask_jax.checkpoints.runs import read_config
    from genmask_jax.config import EvaluationConfig, TrainConfig
    from genmask_jax.config.checks import from_config_dict, with_given
    from genmask_jax.evaluation.on_benchmarks import score_benchmarks
    from genmask_jax.evaluation.on_scenes import score_scenes
    from genmask_jax.evaluation.scoring import Scoring
    from genmask_jax.tools.report import report_on

    config = read_config(TrainConfig, directory_of(CHECKPOINT.value))
    asked: Any = config
    if CONFIG.value:
        kind = EvaluationConfig if "benchmarks" in CONFIG.value else TrainConfig
        asked = from_config_dict(kind, CONFIG.value, file=cli.config_flag())
    benchmarks = isinstance(asked, EvaluationConfig)
    names = BENCHMARK.value or (asked.benchmarks if benchmarks else ())
    sampler = with_given(
        config.sampler if benchmarks else asked.sampler,
        mask_threshold=MASK_THRESHOLD.value,
        mask_steps=MASK_STEPS.value,
        mask_samples=MASK_SAMPLES.value,
        image_steps=IMAGE_STEPS.value,
        guidance_scale=GUIDANCE_SCALE.value,
        no_target_area=NO_TARGET_AREA.value,
        no_target_score=NO_TARGET_SCORE.value,
    )
    scoring = Scoring(
        checkpoint=CHECKPOINT.value,
        step=STEP.value,
        sampler=sampler,
        batch_size=BATCH_SIZE.value,
        seed=SEED.value,
        fsdp=FSDP.value,
        workdir=WORKDIR.value,
    )
    if names:
        root = DATA.value or (asked.path if benchmarks else asked.data.path) or config.data.path
        if not root:
            raise UserError("--data is missing: the directory that launch/prepare_data.py made")
        reason = REASON.value or (benchmarks and asked.reason)
        score_benchmarks(scoring, config, names, root, reason=reason, choose_no_target=CHOOSE_NO_TARGET.value)
    elif REASON.value:
        raise UserError("--reason is for benchmarks; add --benchmark")
    elif asked.data.size != config.data.size:
        raise UserError(f"--config: data.size {asked.data.size}, but the model takes {config.data.size} px")
    else:
        score_scenes(
            scoring,
            asked.data,
            SPLIT.value,
            count=COUNT.value,
            num_images=NUM_IMAGES.value,
            choose_no_target=CHOOSE_NO_TARGET.value,
        )
    run = directory_of(CHECKPOINT.value)
    if not WORKDIR.value and (run / "metrics.jsonl").exists():  # a packed model has no report
        report_on(run)


def start() -> None:
    """The command."""
    cli.run(main)


if __name__ == "__main__":
    start()
