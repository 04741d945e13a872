"""Reads public weights (safetensors) into a directory that training can start from.

    python launch/import_weights.py wan --from=Wan2.1-T2V-1.3B-Diffusers --out=weights/wan_l

wan: the Wan 2.1 text-to-video DiT and its VAE, in diffusers' layout (transformer/, vae/) or in Wan's original
one. Tensors are streamed: a model may be larger than the memory. Then
--config.init=OUT --config.vae=OUT of launch/train.py starts from them, on any mesh.
"""

import argparse
import shutil

from etils import epath
from tqdm import tqdm

from genmask_jax import cli
from genmask_jax.errors import UserError
from genmask_jax.weights import wan
from genmask_jax.weights.parts import write_part


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", choices=["wan"], help="whose weights")
    parser.add_argument("--from", dest="source", type=epath.Path, required=True, help="folder of the weights")
    parser.add_argument("--out", type=epath.Path, required=True, help="directory to write dit/ and vae/ to")
    parser.add_argument("--only", choices=wan.PARTS, help="leave out the other part")
    parser.add_argument(
        "--text_dim",
        type=int,
        help="channels of the instruction encoder; when they are not the weights' (4096), the first "
        "projection of the text is left out and starts fresh",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is in --out")
    arguments = parser.parse_args()
    cli.guard(lambda: import_wan(arguments))


def import_wan(arguments: argparse.Namespace) -> None:
    parts = (arguments.only,) if arguments.only else wan.PARTS
    for part in parts:
        if (arguments.out / part).exists() and not arguments.overwrite:
            raise UserError(f"--out={arguments.out} holds a {part} already; add --overwrite to replace it")
    opened = wan.open_wan(arguments.source, parts, arguments.text_dim)
    for part in opened:
        if (arguments.out / part.name).exists():
            shutil.rmtree(arguments.out / part.name)
        with tqdm(total=part.nbytes, desc=part.name, unit="B", unit_scale=True) as bar:
            write_part(part, arguments.out, bar.update)
        print(part.summary())
    fields = {"dit": "init", "vae": "vae"}
    flags = " ".join(f"--config.{fields[part]}={arguments.out}" for part in parts)
    print(f"wrote {arguments.out}; launch/train.py takes it by {flags}")


if __name__ == "__main__":
    main()
