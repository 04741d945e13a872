"""Prepares a dataset for training and evaluation.

    python launch/prepare_data.py stamps --out=data/stamps
    python launch/prepare_data.py refcoco --raw=raw --out=data
    python launch/prepare_data.py image_folder --raw=my_images --inspect=data/sheet.png
    python launch/prepare_data.py image_folder --raw=my_images --out=data

stamps: photographic cut-outs on photographic backgrounds, from Debian packages. Installed packages are used
first, then .deb files in --raw. Other packages are downloaded to --raw with apt-get download, without root.

refcoco, refcocoplus, refcocog, grefcoco, reasonseg, coco_captions, image_folder: converts the publisher's
files in --raw to OUT/NAME. docs/benchmarks.md lists sources and folder layouts. Prints a table that compares
the result with the published numbers. After an interruption, rerun the command to continue.

image_folder recognises the layout of the folder and prints it; --format sets a different layout
(docs/your_photographs.md lists the layouts). --inspect=FILE.png prints the table and all problems, and writes
only a contact sheet.
"""

import argparse

from etils import epath

from genmask_jax import cli
from genmask_jax.data.prepared.builders import BUILDERS
from genmask_jax.data.prepared.inspect import inspect
from genmask_jax.data.prepared.prepare import prepare
from genmask_jax.data.raw_formats.folder import FORMATS
from genmask_jax.data.stamps.prepare import prepare as prepare_stamps
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import make_directory, need_local


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("name", choices=["stamps", *BUILDERS], help="dataset")
    parser.add_argument("--out", type=epath.Path, help="directory to create")
    parser.add_argument(
        "--raw", type=epath.Path, help="folder of the publisher's files (stamps: OUT/packages by default)"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="",
        help="layout of an image_folder, instead of the recognised one",
    )
    parser.add_argument(
        "--inspect",
        type=epath.Path,
        help="print what would be prepared, and write only a contact sheet to this PNG",
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first problem in the data")
    parser.add_argument("--num_workers", type=int, help="number of processes (default: one per core)")
    parser.add_argument("--beam", help="run on a cluster, with these options of Apache Beam")
    arguments = cli.parse(parser)
    cli.guard(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Prepares the dataset. Raises UserError."""
    if arguments.format and arguments.name != "image_folder":
        raise UserError(f"--format is only for image_folder; leave it out for {arguments.name}")
    if not arguments.out and (not arguments.inspect or arguments.name == "stamps"):
        raise UserError("--out is missing: the directory to create")
    if arguments.out:
        need_local(arguments.out, "--out")
    if arguments.name == "stamps":
        if arguments.strict or arguments.num_workers or arguments.beam:
            raise UserError("--strict, --num_workers and --beam do not apply to stamps; leave them out")
        prepare_stamps(arguments.out, arguments.raw)
        return
    if arguments.raw is None:
        raise UserError("--raw is missing: the folder of the publisher's files; see docs/benchmarks.md")
    if arguments.inspect is not None:
        make_directory(arguments.inspect.parent, "--inspect")
        inspect(arguments.name, arguments.raw, arguments.inspect, arguments.format)
        return
    if arguments.num_workers is not None and arguments.num_workers < 1:
        raise UserError(f"--num_workers={arguments.num_workers} must be positive")
    try:
        prepare(
            arguments.name,
            arguments.raw,
            arguments.out,
            strict=arguments.strict,
            num_workers=arguments.num_workers,
            beam=arguments.beam,
            format=arguments.format,
        )
    except KeyboardInterrupt:
        raise UserError("stopped; rerun the command to continue") from None


if __name__ == "__main__":
    main()
