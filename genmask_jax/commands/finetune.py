"""Trains a model on a folder of your own images with masks, in one command.

    python launch/finetune.py --raw=my_images --workdir=runs/mine
    python launch/finetune.py --raw=my_images --workdir=runs/mine --config.data.size=128
    python launch/finetune.py --raw=photos --workdir=runs/l --from=weights/wan --config=configs/genmask_l.py

Prepares the images (docs/your_photographs.md lists the layouts), trains a VAE if the VAE of --from does not
reconstruct them well enough, trains the model, and scores it on the held-out images. Each step runs another
command and prints it. After an interruption, rerun the command; finished steps are skipped.

--config.FIELD=VALUE is passed to launch/train.py, --vae.FIELD=VALUE to launch/train_vae.py. --workdir gets
data/ (the prepared images), vae/, and model/ (the trained model, with contact sheets of its masks).
"""

import argparse
import concurrent.futures
import dataclasses
import multiprocessing
import os
import shlex
import sys
import time
from collections.abc import Callable
from typing import Any

from etils import epath

from genmask_jax import cli
from genmask_jax.data.raw_formats.folder import FORMATS
from genmask_jax.pretrained import FINETUNED_MODEL, directory_of
from genmask_jax.utils import config_files
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import need_makeable, resolved
from genmask_jax.utils.workers import HUGE_PAGES, run_command

NO_WEIGHTS = "nothing"


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--raw", type=epath.Path, required=True, help="folder of images and masks")
    parser.add_argument("--workdir", required=True, help="directory for all results")
    parser.add_argument(
        "--from",
        dest="start",
        default=FINETUNED_MODEL,
        help=f"weights to start from: {FINETUNED_MODEL}, a run, or imported weights; {NO_WEIGHTS} for none",
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="", help="layout of --raw, instead of the recognised one"
    )
    parser.add_argument("--config", default="finetune", help="a training config")
    parser.add_argument("--vae_config", default="vae_photographs", help="a VAE's config")
    arguments, fields = cli.parse_known(parser)
    cli.guard(lambda: run(arguments, fields))


def run(arguments: argparse.Namespace, fields: list[str]) -> None:
    """Runs the unfinished steps. Raises UserError; exits with the status of a step that fails."""
    from genmask_jax.data.prepared import records
    from genmask_jax.training.finetuning import MAX_EPOCHS, make_plan

    start = time.monotonic()
    run = plan_run(arguments, fields)
    layout = [f"--format={arguments.format}"] if arguments.format else []
    run_step("prepare_data", "image_folder", f"--raw={arguments.raw}", f"--out={run.workdir}/data", *layout)
    prepared = records.find(run.workdir / "data", "image_folder")
    print(f"examples of the prepared images: {prepared}/examples.png")
    plan = make_plan(prepared, run.config)
    vae = choose_vae(run)
    generate = "" if plan.captioned else "none"
    derived = [f"--config.vae={vae}", f"--config.data.generate={generate}"]
    if plan.num_steps < run.config.loop.num_steps and not sets_field(fields, "loop.num_steps"):
        print(f"\n{plan.masks} masks for training: {plan.num_steps} steps, {MAX_EPOCHS} for each mask")
        derived.append(f"--config.loop.num_steps={plan.num_steps}")
    model = run.workdir / "model"
    run_step("train", *run.train, *derived, *model_flags(fields), *workdir_flags(model))
    run_step("evaluate", f"--checkpoint={model}", f"--split={plan.split}")
    minutes = (time.monotonic() - start) / 60
    print(f"{minutes:.0f} min. Masks: {model}/evaluation_{plan.split}/masks.png. Now try:")
    command = cli.as_called("python launch/sample.py")
    print(f'    {command} --checkpoint={model} --image=FILE --text="{plan.phrase}" --out=runs/out')


@dataclasses.dataclass(frozen=True)
class FinetuneRun:
    """The checked flags of a fine-tuning.

    workdir: directory for all results.
    start: weights to start from; "" for random weights.
    fields: the user's --config.FIELD and --vae.FIELD flags.
    train: flags of launch/train.py, without `fields`.
    train_vae: flags of launch/train_vae.py, without `fields`.
    config: the resulting `TrainConfig`.
    vae_config: the resulting `VAETrainConfig`.
    vae_fits: whether the VAE of `start` has the shape of `vae_config`; if so, VAE training starts from it.
    """

    workdir: epath.Path
    start: str
    fields: list[str]
    train: list[str]
    train_vae: list[str]
    config: Any
    vae_config: Any
    vae_fits: bool


def plan_run(arguments: argparse.Namespace, fields: list[str]) -> FinetuneRun:
    """Checks all flags before any image is read. Raises UserError."""
    from genmask_jax.checkpoints.runs import read_vae_config
    from genmask_jax.config import TrainConfig, VAETrainConfig
    from genmask_jax.config.checks import from_config_dict
    from genmask_jax.training import finetuning

    unknown = [field for field in fields if not field.startswith(("--config.", "--vae."))]
    if unknown:
        raise UserError(f"{unknown[0]}: no such flag; see --help")
    if not arguments.raw.exists():
        raise UserError(f"--raw={arguments.raw}: there is no such folder")
    workdir = resolved(need_makeable(arguments.workdir, "--workdir"))
    values = config_files.load_config(arguments.config)
    from_config_dict(TrainConfig, values, file=f"--config={arguments.config}")
    start = "" if arguments.start == NO_WEIGHTS else arguments.start
    start_vae = read_vae_config(directory_of(start)) if start else None
    data = ["--config.data.name=image_folder", f"--config.data.path={workdir}/data"]
    train = [f"--config={config_files.path_of(arguments.config)}", f"--config.init={start}", *data]
    new_vae = f"--config.vae={workdir}/vae"
    config = from_config_dict(TrainConfig, cli.read_config([*train, new_vae, *model_flags(fields)]))
    train_vae = [f"--config={config_files.path_of(arguments.vae_config)}", *data]
    train_vae.append(f"--config.data.size={config.data.size}")
    vae_config = from_config_dict(
        VAETrainConfig,
        cli.read_config([*train_vae, *vae_flags(fields)]),
        file=f"--vae_config={arguments.vae_config}",
    )
    fits = start_vae == vae_config.vae
    train_vae.append(f"--config.init={start if fits else ''}")
    run_in_subprocess(finetuning.check, config, start_vae or vae_config.vae, vae_config)
    return FinetuneRun(workdir, start, fields, train, train_vae, config, vae_config, fits)


def model_flags(fields: list[str]) -> list[str]:
    """Returns the flags of launch/train.py."""
    return [field for field in fields if field.startswith("--config.")]


def vae_flags(fields: list[str]) -> list[str]:
    """Returns the flags of launch/train_vae.py."""
    return [field.replace("--vae.", "--config.", 1) for field in fields if field.startswith("--vae.")]


def sets_field(fields: list[str], name: str) -> bool:
    return any(field.startswith(f"--config.{name}=") for field in fields)


def choose_vae(run: FinetuneRun) -> str:
    """Returns the directory of a VAE: `run.start` if it reconstructs the images well, else a trained one."""
    from genmask_jax.training import finetuning

    directory = run.workdir / "vae"
    if run.start and not (directory / "config.json").exists():
        scores = run_in_subprocess(finetuning.score_vae, run.start, run.vae_config)
        required = finetuning.MIN_VAE_SCORES
        summary = ", ".join(f"{name} {scores[name]:.3g} (needed {x:g})" for name, x in required.items())
        print(f"the VAE of {run.start} on val images: {summary}")
        if all(scores[name] >= minimum for name, minimum in required.items()):
            return run.start
        if not run.vae_fits:
            print("the new VAE has another shape and is trained from scratch")
            run_in_subprocess(finetuning.check, run.config, run.vae_config.vae, run.vae_config)
    run_step("train_vae", *run.train_vae, *vae_flags(run.fields), *workdir_flags(directory))
    return str(directory)


def workdir_flags(directory: epath.Path) -> list[str]:
    """Returns --workdir, and --resume if the directory contains a run."""
    return [f"--workdir={directory}", *(["--resume"] if (directory / "config.json").exists() else [])]


def run_in_subprocess(function: Callable, *arguments: Any) -> Any:
    """Calls a function in another process, because a process that uses JAX does not release the devices."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def run_step(name: str, *arguments: str) -> None:
    """Runs another command from this script's directory; exits if it fails or is stopped."""
    print(f"\n$ {cli.as_called(f'python launch/{name}.py')} {shlex.join(arguments)}", flush=True)
    status, stopped = run_command([*cli.other_command(name), *arguments], HUGE_PAGES | os.environ)
    if status and stopped:
        print("finetune: stopped. Rerun the finetune command, without --resume; finished steps are skipped")
        sys.exit(1)
    if status:
        print(
            "finetune: this step failed. Fix it and rerun the finetune command, without --resume; "
            "finished steps are skipped"
        )
        sys.exit(status)


if __name__ == "__main__":
    main()
