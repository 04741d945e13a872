"""Scores a checkpoint on benchmarks, or on held-out examples of its training dataset.

    python launch/evaluate.py --checkpoint=runs/tiny --split=test --count=512
    python launch/evaluate.py --checkpoint=runs/genmask_l --benchmark=refcoco:unc:testA,reasonseg:val
    python launch/evaluate.py --checkpoint=runs/genmask_l --config=configs/evaluate_refcoco.py

--checkpoint is the --workdir of a training run, a packed model, or the name of a model in the package, such
as refershapes. By default, the run's config gives the sampling options and, without --benchmark, the data.
--config is either a list of benchmarks (configs/evaluate_*.py) or another training config, which replaces
`data` and `sampler`. Writes metrics.json, one line of JSON per example and contact sheets to --workdir. For a
benchmark, a line has id, expression, I, U, and the mask in the format of launch/score.py. On ReferShapes,
objects that are absent from the scenes are also segmented (docs/benchmarks.md).
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
    "config", help_string="Data and sampling options, instead of the run's own config."
)
STEP = flags.DEFINE_string("step", "last", "last, best, or a step.")
BENCHMARK = flags.DEFINE_list("benchmark", None, "Benchmarks, such as refcoco:unc:testA,reasonseg:val.")
DATA = flags.DEFINE_string("data", None, "The --out of prepare_data.py; the config's data.path by default.")
CHOOSE_NO_TARGET = flags.DEFINE_bool(
    "choose_no_target",
    False,
    "Find the no-target rule with the best gIoU, on grefcoco:unc:val or on ReferShapes with --split=val.",
)
REASON = flags.DEFINE_bool("reason", False, "Segment descriptions of the expressions by the run's Qwen.")
SPLIT = flags.DEFINE_enum(
    "split",
    "test",
    ["val", "test", "hand_drawn"],
    "Held-out split, without --benchmark; hand_drawn only for ReferShapes.",
)
COUNT = flags.DEFINE_integer("count", 512, "Number of examples of the split.", lower_bound=1)
UNCERTAINTY = flags.DEFINE_integer(
    "uncertainty",
    0,
    "Report calibration and risk-coverage, from this number of noises per mask.",
    lower_bound=0,
)
MASK_READOUT = flags.DEFINE_enum(
    "mask_readout",
    "decoder",
    ["decoder", "linear"],
    "What reads masks from latents: the VAE's decoder, or a linear map fitted to training masks.",
)
NUM_IMAGES = flags.DEFINE_integer("num_images", 96, "Number of images to generate.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Images per batch.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the noise that sampling starts from.")
FSDP = flags.DEFINE_integer("fsdp", 1, "Number of devices to shard the parameters over.", lower_bound=1)
cli.define_host_flags()
WORKDIR = flags.DEFINE_string(
    "workdir", "", "Output directory; CHECKPOINT/evaluation_SPLIT or evaluation_benchmarks by default."
)
MASK_THRESHOLD = flags.DEFINE_float("mask_threshold", None, "Probability above which a pixel is in the mask.")
MASK_STEPS = flags.DEFINE_integer("mask_steps", None, "Passes per mask.", lower_bound=1)
MASK_NOISE = flags.DEFINE_float(
    "mask_noise", None, "Standard deviation of the noise of masks; 1 as in training, 0 for zeros."
)
MASK_SAMPLES = flags.DEFINE_integer(
    "mask_samples", None, "Number of noises to average masks over.", lower_bound=1
)
IMAGE_STEPS = flags.DEFINE_integer("image_steps", None, "Sampling steps per image.", lower_bound=1)
SHIFT = flags.DEFINE_float("shift", None, "Shift of the timesteps of images towards noise; 1 for none.")
GUIDANCE_SCALE = flags.DEFINE_float("guidance_scale", None, "Classifier-free guidance scale; 1 for none.")
NO_TARGET_AREA = flags.DEFINE_float("no_target_area", None, "Masks of at most this share become empty.")
NO_TARGET_SCORE = flags.DEFINE_float("no_target_score", None, "Masks with a lower score become empty.")


def main() -> None:
    from genmask_jax.config import TrainConfig
    from genmask_jax.evaluation.scoring import Scoring
    from genmask_jax.tools.report import report_on

    evaluate(TrainConfig, Scoring)
    run = directory_of(CHECKPOINT.value)
    if not WORKDIR.value and (run / "metrics.jsonl").exists():  # a packed model has no report
        report_on(run)


def evaluate(kind: Any, scoring: Any) -> None:
    """Scores the checkpoint of the flags.

    Args:
        kind: class of the run's config, a `TrainConfig`.
        scoring: class that opens the checkpoint, a `Scoring`.

    Raises:
        UserError: the flags are inconsistent, or the data or the checkpoint does not exist.
    """
    from genmask_jax.checkpoints.runs import read_config
    from genmask_jax.config import EvaluationConfig
    from genmask_jax.config.checks import from_config_dict

    run_config = read_config(kind, directory_of(CHECKPOINT.value))
    config: Any = run_config
    if CONFIG.value:
        given = EvaluationConfig if "benchmarks" in CONFIG.value else kind
        config = from_config_dict(given, CONFIG.value, file=cli.config_flag())
    if BENCHMARK.value or isinstance(config, EvaluationConfig):
        evaluate_benchmarks(run_config, config, scoring)
    else:
        evaluate_split(run_config, config, scoring)


def make_scoring(kind: Any, sampler: Any) -> Any:
    """Returns the `Scoring` of the flags.

    Args:
        kind: its class.
        sampler: `SamplerConfig` whose fields are the defaults of the sampling options.
    """
    from genmask_jax.config.checks import with_given

    sampler = with_given(
        sampler,
        mask_threshold=MASK_THRESHOLD.value,
        mask_steps=MASK_STEPS.value,
        mask_noise=MASK_NOISE.value,
        mask_samples=MASK_SAMPLES.value,
        image_steps=IMAGE_STEPS.value,
        guidance_scale=GUIDANCE_SCALE.value,
        shift=SHIFT.value,
        no_target_area=NO_TARGET_AREA.value,
        no_target_score=NO_TARGET_SCORE.value,
    )
    return kind(
        checkpoint=CHECKPOINT.value,
        step=STEP.value,
        sampler=sampler,
        batch_size=BATCH_SIZE.value,
        seed=SEED.value,
        fsdp=FSDP.value,
        workdir=WORKDIR.value,
    )


def evaluate_benchmarks(run_config: Any, config: Any, kind: Any) -> None:
    """Scores benchmarks. `config` is an `EvaluationConfig` or a `TrainConfig`. Raises UserError."""
    from genmask_jax.config import EvaluationConfig
    from genmask_jax.evaluation.on_benchmarks import score_benchmarks

    if isinstance(config, EvaluationConfig):
        sampler, names, path, reason = run_config.sampler, config.benchmarks, config.path, config.reason
    else:
        sampler, names, path, reason = config.sampler, (), config.data.path, False
    root = DATA.value or path or run_config.data.path
    scoring = make_scoring(kind, sampler)
    for flag, given in (
        ("uncertainty", UNCERTAINTY.value),
        ("mask_readout", MASK_READOUT.value != "decoder"),
    ):
        if given:
            raise UserError(f"--{flag} is for splits; leave it out with benchmarks")
    if not root:
        raise UserError("--data is missing: the directory that launch/prepare_data.py made")
    score_benchmarks(
        scoring,
        run_config,
        BENCHMARK.value or names,
        root,
        reason=REASON.value or reason,
        choose_no_target=CHOOSE_NO_TARGET.value,
    )


def evaluate_split(run_config: Any, config: Any, kind: Any) -> None:
    """Scores a held-out split of a `TrainConfig`'s dataset. Raises UserError."""
    from genmask_jax.evaluation.on_scenes import score_scenes

    scoring = make_scoring(kind, config.sampler)
    if UNCERTAINTY.value > 1 and scoring.sampler.mask_noise == 0:
        raise UserError("--uncertainty needs masks that differ, but with --mask_noise=0 all are the same")
    if REASON.value:
        raise UserError("--reason is for benchmarks; add --benchmark")
    if config.data.size != run_config.data.size:
        size = run_config.data.size
        raise UserError(f"--config: data.size is {config.data.size}, but the model's resolution is {size} px")
    score_scenes(
        scoring,
        config.data,
        SPLIT.value,
        count=COUNT.value,
        num_images=NUM_IMAGES.value,
        choose_no_target=CHOOSE_NO_TARGET.value,
        noises=UNCERTAINTY.value,
        linear_readout=MASK_READOUT.value == "linear",
    )


def start() -> None:
    """The command."""
    cli.run(main)


if __name__ == "__main__":
    start()
