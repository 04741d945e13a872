"""Trains a VAE on images and on RGB masks, and measures statistics of its latents.

    python launch/train_vae.py --config=configs/vae_tiny.py --workdir=runs/vae_tiny
    python launch/train_vae.py --config=vae_photographs --config.data.path=data --workdir=runs/vae

The work directory gets vae/ (for config.vae of launch/train.py), checkpoints/, samples/ (reconstructions),
metrics.jsonl, TensorBoard events and, at the end, report.html.
"""

from absl import flags, logging
from ml_collections import config_flags

from genmask_jax import cli

CONFIG = config_flags.DEFINE_config_file(
    "config", lock_config=True, help_string="A VAE's config: a file, or a name such as vae_tiny."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
RESUME = flags.DEFINE_bool("resume", False, "Resume the run in --workdir.")
CHANGE = flags.DEFINE_list(
    "change", [], "Fields that may differ from the resumed run, such as loop.num_steps."
)
cli.define_host_flags()
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete the run in --workdir and start again.")


def main() -> None:
    from genmask_jax.config import VAETrainConfig
    from genmask_jax.config.checks import from_config_dict
    from genmask_jax.tools.report import report_on
    from genmask_jax.training.start import train_vae

    workdir, scores = train_vae(
        from_config_dict(VAETrainConfig, CONFIG.value, file=cli.config_flag()),
        WORKDIR.value,
        resume=RESUME.value,
        overwrite=OVERWRITE.value,
        change=CHANGE.value,
    )
    report_on(workdir)
    logging.info("VAE in %s/vae: %s", workdir, scores)


def start() -> None:
    """The command."""
    flags.mark_flag_as_required("config")
    cli.run(main)


if __name__ == "__main__":
    start()
