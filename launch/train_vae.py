"""Trains a VAE on images and on masks as RGB, and measures its latents.

    python launch/train_vae.py --config=configs/vae_tiny.py --workdir=runs/vae_tiny

Writes to the work directory: vae/ (for config.vae of launch/train.py), checkpoints/, samples/
(reconstructions), metrics.jsonl and TensorBoard events.
"""

from absl import flags, logging
from ml_collections import config_flags

from genmask_jax import cli, hosts
from genmask_jax.config import VAETrainConfig, from_config_dict
from genmask_jax.data.sources import segment_source
from genmask_jax.runs import save_vae
from genmask_jax.sharding import make_mesh
from genmask_jax.training.loop import check_batch, check_workdir, make_workdir, train
from genmask_jax.training.vae import VAETask

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True, help_string="A file configs/vae_*.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
RESUME = flags.DEFINE_bool("resume", False, "Resume the run in --workdir.")
hosts.define_flags()
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete the run in --workdir and start again.")


def main() -> None:
    config = from_config_dict(VAETrainConfig, CONFIG.value)
    workdir = check_workdir(WORKDIR.value, resume=RESUME.value, overwrite=OVERWRITE.value, config=config)
    for split in ("train", "val"):
        segment_source(config.data, split)  # raises if it is missing
    task, mesh = VAETask(config), make_mesh(config.mesh)
    check_batch(config.loop, mesh)
    make_workdir(workdir, config, overwrite=OVERWRITE.value)
    state, scores = train(task, config, workdir, mesh)
    save_vae(workdir, config.vae, task.finish(state.ema_params))
    logging.info("VAE in %s/vae: %s", workdir, scores)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    cli.run(main)
