"""Imports public weights (safetensors), to start a training run from them.

    python launch/import_weights.py wan --from=Wan2.1-T2V-1.3B-Diffusers --out=weights/wan_l
    python launch/import_weights.py qwen --from=Qwen2.5-VL-7B-Instruct --out=weights/qwen_7b
    python launch/import_weights.py wan --from=hf:Wan-AI/Wan2.1-T2V-1.3B-Diffusers --out=weights/wan_l

wan: the Wan 2.1 text-to-video DiT and its VAE, in the layout of diffusers (transformer/, vae/) or of Wan.
Start from them with launch/train.py --config.init=OUT --config.vae=OUT.
qwen: Qwen2.5-VL of any size, or a text-only Qwen2.5, in the layout of the model hubs, with its tokenizer and
chat template. Use it with launch/train.py --config.instruction.qwen.weights=OUT.

--from is a folder, or hf:OWNER/NAME[@REVISION] on the Hugging Face hub. Only the imported files are
downloaded, never pickles. An interrupted download resumes.

Tensors are streamed, so models may be larger than memory. The result can be loaded on any mesh. After an
interruption, rerun the command with --overwrite, or with --only for the part that is missing.
"""

import argparse
from typing import Any

from etils import epath
from tqdm import tqdm

from genmask_jax import cli
from genmask_jax.parameters.files import DTYPES
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import make_directory, need_storable

PARTS = ("dit", "vae")
"""Parts of Wan that can be imported."""
COMPLETE = "config.json"
"""The file of a part that is written last."""


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("name", choices=["wan", "qwen"], help="model")
    parser.add_argument(
        "--from", dest="source", required=True, help="folder of the weights, or hf:OWNER/NAME"
    )
    parser.add_argument("--out", type=epath.Path, required=True, help="directory to write to")
    parser.add_argument("--dtype", choices=DTYPES, help="dtype of the result; the source's by default")
    parser.add_argument("--only", choices=PARTS, help="wan: import only this part")
    parser.add_argument(
        "--text_dim",
        type=int,
        help="wan: width of the instruction encoder; if it differs from the weights (4096), the first text "
        "projection is not imported and starts from random values",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace parts that are already in --out")
    arguments = cli.parse(parser)
    cli.guard(lambda: {"wan": import_wan, "qwen": import_qwen}[arguments.name](arguments))


def import_wan(arguments: argparse.Namespace) -> None:
    from genmask_jax.public_weights import hub, wan

    parts = (arguments.only,) if arguments.only else PARTS
    prepare_out(arguments, parts)
    patterns = [pattern for part in parts for pattern in wan.HUB_PATTERNS[part]]
    source = hub.resolve(arguments.source, patterns, wan.check_names)
    for part in wan.open_wan(source, parts, arguments.text_dim):
        remove(part.name, arguments)
        write(part, arguments)
    fields = {"dit": "init", "vae": "vae"}
    flags = " ".join(f"--config.{fields[part]}={arguments.out}" for part in parts)
    print(cli.as_called(f"wrote {arguments.out}; use it with launch/train.py {flags}"))


def import_qwen(arguments: argparse.Namespace) -> None:
    from genmask_jax.public_weights import hub, qwen

    for flag in ("only", "text_dim"):
        if getattr(arguments, flag) is not None:
            raise UserError(f"--{flag} is only for wan; leave it out")
    prepare_out(arguments, (qwen.NAME,))
    source = hub.resolve(arguments.source, (*qwen.WEIGHT_FILES, *qwen.HUB_FILES))
    part = qwen.open_qwen(source)
    remove(part.name, arguments)
    qwen.copy_hub_files(source, arguments.out)
    write(part, arguments)
    width = part.config.text.hidden_size
    hint = cli.as_called("use it with launch/train.py")
    print(
        f"wrote {arguments.out}; {hint} --config.instruction.name=qwen "
        f"--config.instruction.qwen.weights={arguments.out}; import wan with --text_dim={width}"
    )


def prepare_out(arguments: argparse.Namespace, parts: tuple[str, ...]) -> None:
    """Creates --out. Raises UserError if it contains a complete part and --overwrite is not set."""
    need_storable(arguments.out)
    make_directory(arguments.out, "--out")
    for part in parts:
        if (arguments.out / part / COMPLETE).exists() and not arguments.overwrite:
            raise UserError(f"--out={arguments.out} holds a {part} already; add --overwrite to replace it")


def remove(name: str, arguments: argparse.Namespace) -> None:
    """Deletes a part, so that it never looks complete in between."""
    (arguments.out / name / COMPLETE).unlink(missing_ok=True)
    if (arguments.out / name).exists():
        (arguments.out / name).rmtree()


def write(part: Any, arguments: argparse.Namespace) -> None:
    """Writes a `weights.parts.Part`."""
    from genmask_jax.public_weights.parts import write_part

    part.stored_dtype = DTYPES[arguments.dtype] if arguments.dtype else None
    with tqdm(total=part.nbytes, desc=part.name, unit="B", unit_scale=True) as bar:
        write_part(part, arguments.out, bar.update)
    print(part.summary())


if __name__ == "__main__":
    main()
