"""Exports a model to the formats of other libraries.

    python launch/export_weights.py wan --from=runs/genmask_l --out=weights/wan
    python launch/export_weights.py qwen --from=weights/qwen_7b --out=weights/exported_qwen
    python launch/export_weights.py genmask --from=runs/tiny --out=weights/tiny
    python launch/export_weights.py run --from=runs/genmask_l_lora --out=runs/merged
    python launch/export_weights.py lora --from=runs/genmask_l_lora --out=weights/lora

wan: diffusers' folders transformer/ and vae/, for WanTransformer3DModel and AutoencoderKLWan. --from is a
training run (EMA parameters and VAE) or a directory made by launch/import_weights.py. Adapters are merged.
The VAE is for single images: weights that act across frames are zeros.
qwen: a folder for transformers, from a directory made by launch/import_weights.py.
genmask: a run's model in one small directory, which every command accepts instead of a run.
run: merges the adapters of a run (config.model.lora_rank) into its weights, for sampling, evaluation and
--config.init.
lora: only the adapters, as safetensors for diffusers' WanPipeline.load_lora_weights.

After an interruption, rerun the command.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator

from etils import epath
from tqdm import tqdm

from genmask_jax import cli
from genmask_jax.pretrained import directory_of
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import is_leftover, listed, make_directory, need_local, need_makeable, write_text

UNFINISHED = ".unfinished_export"
"""A file in --out until the export is complete."""


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("name", choices=EXPORTS, help="format")
    parser.add_argument(
        "--from", dest="source", type=directory_of, required=True, help="training run or imported weights"
    )
    parser.add_argument("--out", type=epath.Path, required=True, help="directory to create")
    parser.add_argument("--step", default="last", help="checkpoint of a run: last, best, or a step")
    parser.add_argument(
        "--dtype",
        choices=["float16", "bfloat16", "float32"],
        help="genmask: dtype of the weights; float16 by default",
    )
    parser.add_argument("--only", choices=["dit", "vae"], help="wan: export only this part")
    arguments = cli.parse(parser)
    cli.guard(lambda: export(arguments))


def export(arguments: argparse.Namespace) -> None:
    if arguments.name != "wan" and arguments.only:
        raise UserError("--only is only for wan; leave it out")
    if arguments.name != "genmask" and arguments.dtype:
        raise UserError("--dtype is only for genmask; leave it out")
    if arguments.name == "qwen" and arguments.step != "last":
        raise UserError("--step is only for training runs; leave it out")
    need_local(arguments.out, "--out")
    with (
        writing_to(arguments.out),
        tqdm(unit="B", unit_scale=True, desc="export", delay=1, leave=False) as bar,
    ):
        for line in EXPORTS[arguments.name](arguments, bar.update):
            bar.write(line)


@contextlib.contextmanager
def writing_to(out: epath.Path) -> Iterator[None]:
    """Marks --out as unfinished meanwhile, so that an interrupted export can be repeated.

    What an unfinished export wrote is deleted. Hidden files of others stay.

    Raises:
        UserError: --out cannot be created, or is not empty.
    """
    created = not need_makeable(out, "--out").exists()
    marker = out / UNFINISHED
    if marker.exists():
        for path in out.iterdir():
            if path.is_dir() and not is_leftover(path.name):
                path.rmtree()
            elif path.name.endswith(".tmp") or not is_leftover(path.name):
                path.unlink()
    if listed(out):
        raise UserError(f"--out={out} is not empty; give a new directory")
    make_directory(out, "--out")
    write_text(marker, "This export is not finished. The same command starts it again.\n")
    try:
        yield
    except BaseException:
        if created and not listed(out):
            out.rmtree()
        raise
    marker.unlink()


def export_wan(arguments: argparse.Namespace, progress: Callable[[int], object]) -> Iterator[str]:
    from genmask_jax.public_weights import wan

    if arguments.only != "vae":
        yield wan.export_dit(arguments.source, arguments.out, arguments.step, progress)
    if arguments.only != "dit":
        yield wan.export_vae(arguments.source, arguments.out, progress)


def export_qwen(arguments: argparse.Namespace, progress: Callable[[int], object]) -> Iterator[str]:
    from genmask_jax.public_weights import qwen

    yield qwen.export_qwen(arguments.source, arguments.out, progress)


def export_genmask(arguments: argparse.Namespace, progress: Callable[[int], object]) -> Iterator[str]:
    from genmask_jax.public_weights import packing

    dtype = arguments.dtype or "float16"
    yield packing.pack_run(arguments.source, arguments.out, arguments.step, dtype, progress)


def export_run(arguments: argparse.Namespace, progress: Callable[[int], object]) -> Iterator[str]:
    from genmask_jax.public_weights import lora

    yield lora.merge_run(arguments.source, arguments.out, arguments.step, progress)


def export_lora(arguments: argparse.Namespace, progress: Callable[[int], object]) -> Iterator[str]:
    from genmask_jax.public_weights import lora

    yield lora.export_lora(arguments.source, arguments.out, arguments.step)


EXPORTS = {
    "wan": export_wan,
    "qwen": export_qwen,
    "genmask": export_genmask,
    "run": export_run,
    "lora": export_lora,
}


if __name__ == "__main__":
    main()
