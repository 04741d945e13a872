"""Trains GenMask: one model for masks and images, with one objective.

    python launch/train.py --config=configs/genmask_tiny.py --workdir=runs/tiny
    python launch/train.py --config=genmask_tiny --config.vae=refershapes --config.seed=1 --workdir=runs/seed1

--config.FIELD=VALUE sets a field of the config, such as --config.optimizer.learning_rate=3e-4. On a pod, run
the same command on every host. After Ctrl-C, SIGTERM or a crash, --resume continues the run. The work
directory gets checkpoints/, samples/ (validation images), metrics.jsonl, TensorBoard events and, at the end,
report.html.
"""

from absl import flags, logging
from ml_collections import config_flags

from genmask_jax import cli
from genmask_jax.utils.errors import UserError

CONFIG = config_flags.DEFINE_config_file(
    "config", lock_config=True, help_string="A training config: a file, or a name such as genmask_tiny."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
RESUME = flags.DEFINE_bool("resume", False, "Resume the run in --workdir.")
CHANGE = flags.DEFINE_list(
    "change",
    [],
    "Fields that may differ from the resumed run, such as loop.num_steps,optimizer.learning_rate.",
)
PROFILE = flags.DEFINE_string(
    "profile",
    None,
    "START:STOP: steps to trace to WORKDIR/profile, for XProf and Perfetto.",
)
cli.define_host_flags()
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete the run in --workdir and start again.")


def main() -> None:
    from genmask_jax.config import TrainConfig
    from genmask_jax.config.checks import from_config_dict
    from genmask_jax.tools.report import report_on
    from genmask_jax.training.start import train_genmask

    config = from_config_dict(TrainConfig, CONFIG.value, file=cli.config_flag())
    _, scores = train_genmask(
        config,
        WORKDIR.value,
        resume=RESUME.value,
        overwrite=OVERWRITE.value,
        change=CHANGE.value,
        profile=parse_range(PROFILE.value, config.loop.num_steps),
    )
    report_on(WORKDIR.value)
    logging.info("trained %s in %s: %s", config.name, WORKDIR.value, scores)


def parse_range(text: str | None, num_steps: int) -> range:
    """START:STOP as a range of steps. Raises UserError if it is invalid or beyond the last step."""
    if text is None:
        return range(0)
    start, _, stop = text.partition(":")
    if not (start.isdigit() and stop.isdigit() and int(start) < int(stop) <= num_steps):
        raise UserError(f"--profile={text}: give START:STOP with START < STOP <= loop.num_steps {num_steps}")
    return range(int(start), int(stop))


def start() -> None:
    """The command."""
    flags.mark_flag_as_required("config")
    cli.run(main)


if __name__ == "__main__":
    start()
