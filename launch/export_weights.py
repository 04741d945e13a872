"""Exports a model to the formats of other libraries.

    python launch/export_weights.py wan --from=runs/genmask_l --out=exported
    python launch/export_weights.py qwen --from=weights/qwen_7b --out=exported_qwen
    python launch/export_weights.py run --from=runs/genmask_l_lora --out=runs/merged
    python launch/export_weights.py lora --from=runs/genmask_l_lora --out=exported_lora

wan: diffusers' folders transformer/ and vae/, for WanTransformer3DModel and AutoencoderKLWan. --from is a
training run (its EMA parameters and its VAE) or a directory made by launch/import_weights.py. The VAE is for
single images: weights that act across frames are zeros. Adapters are merged.
qwen: a model hub folder for transformers, from a directory made by launch/import_weights.py.
run: a run with adapters (config.model.lora_rank) as one without, for sampling, evaluation and --config.init.
lora: the adapters alone, as safetensors for diffusers' WanPipeline.load_lora_weights.
"""

import argparse

from etils import epath
from tqdm import tqdm

from genmask_jax import cli
from genmask_jax.errors import UserError
from genmask_jax.paths import listed, make_directory
from genmask_jax.weights import lora, qwen, wan


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", choices=["wan", "qwen", "run", "lora"], help="what to write")
    parser.add_argument(
        "--from", dest="source", type=epath.Path, required=True, help="training run, or imported weights"
    )
    parser.add_argument("--out", type=epath.Path, required=True, help="directory to create")
    parser.add_argument("--step", default="last", help="checkpoint of a run: last, best, or a step")
    parser.add_argument("--only", choices=wan.PARTS, help="wan: only this part")
    arguments = cli.parse(parser)
    cli.guard(lambda: export(arguments))


def export(arguments: argparse.Namespace) -> None:
    if arguments.name != "wan" and arguments.only:
        raise UserError("--only is for wan; leave it out")
    if arguments.name == "qwen" and arguments.step != "last":
        raise UserError("--step is for runs; leave it out")
    if listed(make_directory(arguments.out, "--out")):
        raise UserError(f"--out={arguments.out} is not empty; give a new directory")
    with tqdm(unit="B", unit_scale=True, desc="export") as bar:
        if arguments.name == "qwen":
            bar.write(qwen.export_qwen(arguments.source, arguments.out, bar.update))
            return
        if arguments.name == "run":
            bar.write(lora.merge_run(arguments.source, arguments.out, arguments.step, bar.update))
            return
        if arguments.name == "lora":
            bar.write(lora.export_lora(arguments.source, arguments.out, arguments.step))
            return
        if arguments.only != "vae":
            bar.write(wan.export_dit(arguments.source, arguments.out, arguments.step, bar.update))
        if arguments.only != "dit":
            bar.write(wan.export_vae(arguments.source, arguments.out, bar.update))


if __name__ == "__main__":
    main()
