"""The directory of a run: new, overwritten or resumed, and what may change when it is resumed."""

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
from genmask_jax.utils.paths import listed, make_directory, need_storable, write_text

FREE = (
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
)
"""Fields, and groups of fields, that may change on a resume: where things are, and how they are computed."""
NAMED = (
    "optimizer.learning_rate",
    "optimizer.instruction_lr_scale",
    "optimizer.warmup_steps",
    "optimizer.weight_decay",
    "optimizer.b1",
    "optimizer.b2",
    "optimizer.max_grad_norm",
    "loop.num_steps",
    "loop.ema_decay",
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
"""Those that change the numbers, and may change on a resume if --change names them."""


@dataclasses.dataclass(frozen=True)
class Workdir:
    """A directory that may be used for a run.

    path: absolute.
    resumed: whether it holds a run that goes on.
    overwrite: whether it holds a run that is to be deleted.
    changes: what differs from the run's config so far: dotted name, old and new value.
    """

    path: epath.Path
    resumed: bool = False
    overwrite: bool = False
    changes: tuple[tuple[str, Any, Any], ...] = ()

    @property
    def begun(self) -> bool:
        """Whether the run goes on from a checkpoint."""
        return self.resumed and has_checkpoint(self.path)


def check_workdir(
    workdir: str, config: Any, *, resume: bool = False, overwrite: bool = False, change: Sequence[str] = ()
) -> Workdir:
    """Checks a run's directory without changing it.

    Args:
        workdir: the directory. If it holds a run, `resume` or `overwrite` is needed.
        config: of the run that is to be trained there.
        resume: continue the run that is there; start one if there is none.
        overwrite: start again.
        change: names of fields that may differ from those of the run that is resumed (see `NAMED`).

    Raises:
        UserError: the directory cannot be used, or its run cannot continue with this config.
    """
    path = epath.Path(workdir).resolve()  # Orbax needs absolute paths
    need_storable(path)
    used = (path / "config.json").exists()
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; give only one")
    unknown = [name for name in change if not _in(name, NAMED)]
    if unknown:
        raise UserError(f"--change={unknown[0]}: this cannot change in a run; what can: {', '.join(NAMED)}")
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
        if _in(name, FREE) or _in(name, change):
            continue
        mend = (
            f"add --change={name} to go on with the new value"
            if _in(name, NAMED)
            else "a run keeps it to its end; start a new one"
        )
        raise UserError(f"{workdir}: --resume with config.{name} {before!r} -> {after!r}; {mend}")


def make_workdir(workdir: Workdir, config: Any) -> None:
    """Creates the directory, deletes the old run in it if that is to be overwritten, and writes config.json.

    The first host does this once all hosts have done their checks. Changes of a resumed run are logged, and
    kept in config.json as its "history".

    Raises:
        UserError: on every host, when it cannot be made.
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
        raise failed or UserError("--workdir: the first host cannot make it")


def _entry(workdir: Workdir) -> list[dict[str, Any]]:
    """What this resume adds to the history of a run."""
    if not workdir.changes:
        return []
    try:
        step = find_step(workdir.path, "last")
    except UserError:  # it was stopped before its first checkpoint
        step = 0
    for name, before, after in workdir.changes:
        logging.info("from step %d on: config.%s %r -> %r", step, name, before, after)
    return [{"step": step, "changes": {name: [before, after] for name, before, after in workdir.changes}}]
