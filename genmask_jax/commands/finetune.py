"""From a folder of your own images with masks to a model that finds them, in one command.

    python launch/finetune.py --raw=my_images --workdir=runs/mine
    python launch/finetune.py --raw=my_images --workdir=runs/mine --config.data.size=128
    python launch/finetune.py --raw=photos --workdir=runs/l --from=weights/wan --config=configs/genmask_l.py

Prepares the images (docs/your_photographs.md lists the layouts), trains a VAE where that of --from does not
give them back well enough, trains, and scores on the held-out images. Each step is a command of its own, and
printed; after an interruption, repeat the whole command: what is done is not done again.

--config.FIELD=VALUE goes to launch/train.py, --vae.FIELD=VALUE to launch/train_vae.py. In --workdir: data/
(the prepared images, with examples.png), vae/, and model/, the trained model, with sheets of its masks.
"""

import argparse
import os
import shlex
import sys
import time
from typing import Any

from etils import epath

from genmask_jax import cli
from genmask_jax.config import DataConfig, VAETrainConfig
from genmask_jax.data.prepared import records
from genmask_jax.data.prepared.raw.folder import FORMATS
from genmask_jax.errors import UserError
from genmask_jax.fields import from_dict
from genmask_jax.models.vae import VAEConfig
from genmask_jax.paths import make_directory
from genmask_jax.pretrained import DEFAULT, directory_of
from genmask_jax.runs import load_vae
from genmask_jax.training.vae import VAETask
from genmask_jax.workers import run_command

ENOUGH = {"mask_mIoU": 0.92, "image_psnr": 26.0}
"""What a VAE must reach on the val images to be used as it is."""
VISITS = 400
"""How often a mask is trained on, at most: a few images need fewer steps than the config's."""
NOTHING = "nothing"
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Makes steps on a CPU 12 to 18 % shorter: their hundreds of megabytes are mapped in pages of 2 MiB.

glibc reads it only when a process starts; `cli.suit_cpu` does the rest."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--raw", type=epath.Path, required=True, help="folder of images and masks")
    parser.add_argument("--workdir", required=True, help="directory of everything that this makes")
    parser.add_argument(
        "--from",
        dest="start",
        default=DEFAULT,
        help=f"weights to start from: {DEFAULT}, a run, or imported ones; {NOTHING} for none",
    )
    parser.add_argument("--format", choices=FORMATS, default="", help="layout of --raw, if not recognised")
    parser.add_argument("--config", default="finetune", help="a training config")
    parser.add_argument("--vae_config", default="vae_photographs", help="of the VAE")
    arguments, fields = cli.parse_known(parser)
    cli.guard(lambda: run(arguments, fields))


def run(arguments: argparse.Namespace, fields: list[str]) -> None:
    """Runs the steps that are not done yet. Raises UserError, or exits as a step that failed does."""
    unknown = [field for field in fields if not field.startswith(("--config.", "--vae."))]
    if unknown:
        raise UserError(f"{unknown[0]}: no such flag; see --help")
    began, workdir = time.monotonic(), make_directory(arguments.workdir, "--workdir").resolve()
    start = "" if arguments.start == NOTHING else arguments.start
    if start:
        directory_of(start)  # fail early
    data, model = workdir / "data", workdir / "model"
    layout = [f"--format={arguments.format}"] if arguments.format else []
    call("prepare_data", "image_folder", f"--raw={arguments.raw}", f"--out={data}", *layout)
    prepared = records.find(data, "image_folder")
    of_model = [field for field in fields if field.startswith("--config.")]
    of_vae = [field.replace("--vae.", "--config.", 1) for field in fields if field.startswith("--vae.")]
    config = cli.load_config(arguments.config)
    size = given_number(of_model, "data.size", config.data.size)
    of_data = ["--config.data.name=image_folder", f"--config.data.path={data}", f"--config.data.size={size}"]
    vae = choose_vae(arguments.vae_config, start, workdir, size, [*of_data, *of_vae])
    generate = "" if captioned(prepared) else "none"
    given = [f"--config.init={start}", f"--config.vae={vae}", f"--config.data.generate={generate}"]
    given += [*of_data, *fewer_steps(prepared, config.loop, of_model, generate)]
    given += [*of_model, f"--workdir={model}", "--resume"]
    call("train", f"--config={cli.config_path(arguments.config)}", *given)
    split = "test" if "test" in records.splits_of(prepared) else "val"
    call("evaluate", f"--checkpoint={model}", f"--split={split}")
    asked = (*records.read_classes(prepared), "the object")[0]
    print(f"{(time.monotonic() - began) / 60:.0f} min. Masks: {model}/evaluation_{split}/masks.png. Now try:")
    print(f'    python launch/sample.py --checkpoint={model} --image=FILE --text="{asked}" --out=out')


def captioned(prepared: str) -> bool:
    """Whether images of both splits have captions to learn to generate from."""
    splits = records.splits_of(prepared)
    return all(
        split in splits and records.read_index(prepared, split).counts["captions"]
        for split in ("train", "val")
    )


def given_number(fields: list[str], name: str, default: int) -> int:
    """A field of the config as flags set it, or as the config does. Raises UserError if it is no number."""
    values = [field.partition("=")[2] for field in fields if field.startswith(f"--config.{name}=")]
    if values and not values[-1].isdigit():
        raise UserError(f"--config.{name}={values[-1]}: give a number")
    return int(values[-1]) if values else default


def fewer_steps(prepared: str, loop: Any, fields: list[str], generate: str) -> list[str]:
    """The flag for fewer steps than the config's, if those would show each mask more than VISITS times."""
    masks = records.read_index(prepared, "train").counts["expressions"]
    batch = given_number(fields, "loop.global_batch_size", loop.global_batch_size)
    steps = -(-VISITS * masks // (batch if generate == "none" else batch // 2))
    if steps >= loop.num_steps or any(field.startswith("--config.loop.num_steps=") for field in fields):
        return []
    print(f"\n{masks} masks to learn from: {steps} steps show each {VISITS} times")
    return [f"--config.loop.num_steps={steps}"]


def choose_vae(path: str, start: str, workdir: epath.Path, size: int, fields: list[str]) -> str:
    """The VAE to use: that of `start` if it gives the images back well enough, else one that is trained."""
    run, init = workdir / "vae", start
    if start and not (run / "config.json").exists():
        shape, _ = load_vae(start)
        data = DataConfig(name="image_folder", path=str(workdir / "data"), size=size)
        config = VAETrainConfig(name="of_start", vae=shape, init=start, data=data)
        scores = VAETask(config).score_start()
        said = ", ".join(f"{name} {scores[name]:.3g} (needed {least:g})" for name, least in ENOUGH.items())
        print(f"the VAE of {start} on the val images: {said}")
        if all(scores[name] >= least for name, least in ENOUGH.items()):
            return start
        if shape != from_dict(VAEConfig, cli.load_config(path).vae):
            print(f"the VAE of {start} has another shape than {path}: a new one is trained from scratch")
            init = ""
    given = [f"--config.init={init}", *fields, f"--workdir={run}", "--resume"]
    call("train_vae", f"--config={cli.config_path(path)}", *given)
    return str(run)


def call(name: str, *arguments: str) -> None:
    """Runs another command; exits as it does if it fails, or is stopped."""
    print(f"\n$ python launch/{name}.py {shlex.join(arguments)}", flush=True)
    command = [sys.executable, "-m", f"genmask_jax.commands.{name}", *arguments]
    status, stopped = run_command(command, HUGE_PAGES | os.environ)
    if status and stopped:
        print("finetune: stopped; repeat the command, which goes on from here")
        sys.exit(1)
    if status:
        print("finetune: this step failed; fix it and repeat the command, which goes on from here")
        sys.exit(status)


if __name__ == "__main__":
    main()
