"""Trains GenMask: masks and images with one model and one objective.

    python launch/train.py --config=configs/genmask_tiny.py --workdir=runs/tiny

Any field of the config can be set: --config.optimizer.learning_rate=3e-4. On a pod, run the same command on
every host. A stopped run (Ctrl-C, SIGTERM, a crash) resumes with --resume. Writes to the work directory:
checkpoints/, samples/ (validation images), metrics.jsonl and TensorBoard events.
"""

from absl import flags, logging
from ml_collections import config_flags

from genmask_jax import cli, hosts
from genmask_jax.config import TrainConfig, from_config_dict
from genmask_jax.data.latents.store import need_same, need_same_instruction
from genmask_jax.data.sources import check as check_data
from genmask_jax.data.sources import texts
from genmask_jax.errors import UserError
from genmask_jax.instruction import factory
from genmask_jax.runs import load_vae, save_vae
from genmask_jax.sharding import make_mesh
from genmask_jax.system import make_networks
from genmask_jax.training.genmask import GenMaskTask
from genmask_jax.training.init import find_dit
from genmask_jax.training.loop import check_batch, check_workdir, make_workdir, train

CONFIG = config_flags.DEFINE_config_file(
    "config", lock_config=True, help_string="A file configs/genmask_*.py."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
RESUME = flags.DEFINE_bool("resume", False, "Resume the run in --workdir.")
PROFILE = flags.DEFINE_string(
    "profile",
    None,
    "START:STOP, steps to trace to WORKDIR/profile, for XProf and Perfetto.",
)
hosts.define_flags()
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete the run in --workdir and start again.")


def main() -> None:
    config = from_config_dict(TrainConfig, CONFIG.value)
    profile = parse_range(PROFILE.value, config.loop.num_steps)
    # Check everything before --overwrite deletes anything.
    workdir = check_workdir(WORKDIR.value, resume=RESUME.value, overwrite=OVERWRITE.value, config=config)
    vae_config, vae_state = load_vae(config.vae)
    check_data(config.data)
    if config.data.latents:
        need_same(config.data, vae_config, vae_state)
    if config.init:
        find_dit(config.init)
    kept = workdir / "instruction"
    known = RESUME.value and kept.exists()  # a resumed run keeps its tokenizer
    encoder = factory.build(config.instruction, kept, [] if known else texts(config.data))
    if config.data.latents:
        need_same_instruction(config.data.latents, encoder)
    mesh = make_mesh(config.mesh)
    check_batch(config.loop, mesh)
    networks = make_networks(config, vae_config, vae_state, encoder, mesh)
    make_workdir(workdir, config, overwrite=OVERWRITE.value)
    save_vae(workdir, vae_config, vae_state)
    if encoder.save is not None and not known and hosts.is_first():
        encoder.save(kept)
    hosts.wait("instruction encoder saved")
    _, scores = train(GenMaskTask(networks, config), config, workdir, mesh, profile)
    logging.info("trained %s in %s: %s", config.name, workdir, scores)


def parse_range(text: str | None, num_steps: int) -> range:
    """START:STOP as a range of steps. Raises UserError if it is invalid, or the run has no such steps."""
    if text is None:
        return range(0)
    start, _, stop = text.partition(":")
    if not (start.isdigit() and stop.isdigit() and int(start) < int(stop) <= num_steps):
        raise UserError(f"--profile={text}: give START:STOP with START < STOP <= loop.num_steps {num_steps}")
    return range(int(start), int(stop))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    cli.run(main)
