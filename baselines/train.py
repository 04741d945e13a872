"""Trains a baseline, and scores it on the test split.

    python baselines/train.py --config=baselines/configs/unet.py --workdir=runs/unet
    python baselines/train.py --config=baselines/configs/dit_linear.py --workdir=runs/dit_linear

--config.FIELD=VALUE sets a field, such as --config.data.name=stamps. After Ctrl-C, SIGTERM or a crash,
--resume continues the run. The work directory is that of launch/train.py, without a report. The scores are in
WORKDIR/evaluation_test, as launch/evaluate.py writes them.
"""

from absl import flags
from ml_collections import config_flags

from genmask_jax import cli

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True, help_string="Config of a baseline.")
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
RESUME = flags.DEFINE_bool("resume", False, "Resume the run in --workdir.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete the run in --workdir and start again.")
cli.define_host_flags()

NUM_TEST_EXAMPLES = 512


def main() -> None:
    from baseline import BaselineConfig, BaselineScoring, BaselineTask

    from genmask_jax.config.checks import from_config_dict
    from genmask_jax.evaluation.on_scenes import score_scenes
    from genmask_jax.training.start import train_genmask

    config = from_config_dict(BaselineConfig, CONFIG.value, file=cli.config_flag())
    options = {"resume": RESUME.value, "overwrite": OVERWRITE.value, "make_task": BaselineTask}
    train_genmask(config, WORKDIR.value, **options)
    scoring = BaselineScoring(
        checkpoint=WORKDIR.value,
        step="last",
        sampler=config.sampler,
        batch_size=32,
        seed=0,
        fsdp=config.mesh.fsdp,
        workdir="",
    )
    count = NUM_TEST_EXAMPLES
    score_scenes(scoring, config.data, "test", count=count, num_images=1, choose_no_target=False, noises=1)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    cli.run(main)
