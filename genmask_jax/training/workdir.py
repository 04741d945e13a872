"""The directory of a run: new, overwritten or resumed, and which fields may change on a resume."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from absl import logging
from etils import epath

from genmask_jax.checkpoints.runs import find_step, has_checkpoint, read_config, read_history
from genmask_jax.utils import hosts
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import differences
from genmask_jax.utils.paths import listed, make_directory, need_storable, resolved, write_text

FREE_FIELDS = (
    "vae",
    "init",
    "data.path",
    "data.num_workers",
    "instruction.qwen.weights",
    "instruction.qwen.write",
    "model.remat",
    "model.unroll",
    "mesh",
    "loop.log_every_steps",
    "loop.eval_every_steps",
    "loop.checkpoint_every_steps",
    "loop.num_eval_examples",
    "loop.max_skipped_steps",
)
"""Fields, and groups of fields, that may change on a resume: they do not affect results."""
CHANGEABLE_FIELDS = (
    "optimizer.learning_rate",
    "optimizer.instruction_lr_scale",
    "optimizer.warmup_steps",
    "optimizer.weight_decay",
    "optimizer.b1",
    "optimizer.b2",
    "optimizer.max_grad_norm",
    "loop.num_steps",
    "loop.ema_decay",
    "loop.max_grad_norm_ratio",
    "timesteps",
    "sampler",
    "segment_weight",
    "small_mask_weight",
    "condition_dropout",
    "mask_weight",
    "kl_weight",
    "data.joint",
    "data.latents",
)
"""Fields that affect results, and may change on a resume if they are listed in --change."""


@dataclasses.dataclass(frozen=True)
class Workdir:
    """A directory that may be used for a run.

    path: absolute path.
    resumed: whether it contains a run to continue.
    overwrite: whether it contains a run to delete.
    changes: fields that differ from the config of the run so far: dotted name, old and new value.
    """

    path: epath.Path
    resumed: bool = False
    overwrite: bool = False
    changes: tuple[tuple[str, Any, Any], ...] = ()

    @property
    def restored(self) -> bool:
        """Whether the run continues from a checkpoint."""
        return self.resumed and has_checkpoint(self.path)


def check_workdir(
    workdir: str, config: Any, *, resume: bool = False, overwrite: bool = False, change: Sequence[str] = ()
) -> Workdir:
    """Checks a run's directory without changing it.

    Args:
        workdir: the directory. If it contains a run, `resume` or `overwrite` is required.
        config: config of the run.
        resume: continue the run in the directory; start one if there is none.
        overwrite: delete the run in the directory, and start again.
        change: names of fields that may differ from the resumed run's (see `CHANGEABLE_FIELDS`).

    Raises:
        UserError: the directory cannot be used, or its run cannot continue with this config.
    """
    path = resolved(workdir)  # Orbax needs absolute paths
    need_storable(path)
    used = (path / "config.json").exists()
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; give only one")
    unknown = [name for name in change if not _in(name, CHANGEABLE_FIELDS)]
    if unknown:
        fields = ", ".join(CHANGEABLE_FIELDS)
        raise UserError(
            f"--change={unknown[0]}: this field cannot change in a run. Fields that can: {fields}"
        )
    if path.is_file():
        raise UserError(f"--workdir={workdir} is a file; give a directory")
    if used and resume:
        changes = tuple(differences(read_config(type(config), path), config))
        _need_allowed(workdir, changes, change)
        return Workdir(path, resumed=True, changes=changes)
    if not (used and overwrite) and listed(path):
        what = "holds a run; add --resume or --overwrite" if used else "is not empty; give a new directory"
        raise UserError(f"--workdir={workdir} {what}")
    if resume:
        logging.warning("--resume: %s holds no run yet: a new one starts", workdir)
    return Workdir(path, overwrite=used)


def _in(name: str, fields: Sequence[str]) -> bool:
    return any(name == field or name.startswith(f"{field}.") for field in fields)


def _need_allowed(workdir: str, changes: Sequence[tuple[str, Any, Any]], change: Sequence[str]) -> None:
    for name, before, after in changes:
        if _in(name, FREE_FIELDS) or _in(name, change):
            continue
        fix = (
            f"add --change={name} to continue with the new value"
            if _in(name, CHANGEABLE_FIELDS)
            else "this field cannot change in a run; start a new run"
        )
        raise UserError(f"{workdir}: --resume with config.{name} {before!r} -> {after!r}; {fix}")


def make_workdir(workdir: Workdir, config: Any) -> None:
    """Creates the directory, deletes an old run if it is overwritten, and writes config.json.

    The first host does this after all hosts have passed their checks. Changes of a resumed run are logged,
    and stored in config.json as "history".

    Raises:
        UserError: on every host, if the directory cannot be created.
    """
    hosts.wait("work directory checked")
    failed = None
    if hosts.is_first():
        try:
            if workdir.overwrite:
                workdir.path.rmtree()
            make_directory(workdir.path, "--workdir")
            history = read_history(workdir.path) + _entry(workdir)
            values = dataclasses.asdict(config) | ({"history": history} if history else {})
            write_text(workdir.path / "config.json", json.dumps(values, indent=2))
        except (UserError, OSError) as error:
            failed = error
    if hosts.any_host(failed is not None):
        raise failed or UserError("--workdir: the first host cannot create it")


def _entry(workdir: Workdir) -> list[dict[str, Any]]:
    """The entry of this resume in the history of a run."""
    if not workdir.changes:
        return []
    try:
        step = find_step(workdir.path, "last")
    except UserError:  # the run stopped before its first checkpoint
        step = 0
    for name, before, after in workdir.changes:
        logging.info("from step %d on: config.%s %r -> %r", step, name, before, after)
    return [{"step": step, "changes": {name: [before, after] for name, before, after in workdir.changes}}]
