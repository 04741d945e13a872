"""Prepares a dataset for training and evaluation.

    python launch/prepare_data.py stamps --out=data/stamps
    python launch/prepare_data.py refcoco --raw=raw --out=data
    python launch/prepare_data.py image_folder --raw=my_images --out=data

stamps: photographic cut-outs on photographic backgrounds, from Debian packages: as they are installed, else
from .deb files in --raw, else fetched there with apt-get download (never installed; no root needed).

refcoco, refcocoplus, refcocog, grefcoco, reasonseg, coco_captions, image_folder: from the publisher's files
in --raw (docs/benchmarks.md says where they come from and how they lie), to OUT/NAME. It ends with a table of
what there is beside what should be there. When it is stopped, the same command goes on.
"""

import argparse

from etils import epath

from genmask_jax import cli
from genmask_jax.data.prepared.builders import BUILDERS
from genmask_jax.data.prepared.prepare import prepare
from genmask_jax.data.stamps.prepare import prepare as prepare_stamps
from genmask_jax.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", choices=["stamps", *BUILDERS], help="which dataset")
    parser.add_argument("--out", type=epath.Path, required=True, help="directory to make")
    parser.add_argument(
        "--raw", type=epath.Path, help="where the publisher's files are (stamps: OUT/packages)"
    )
    parser.add_argument("--strict", action="store_true", help="end at the first thing that is wrong")
    parser.add_argument("--num_workers", type=int, help="processes (default: one a core)")
    parser.add_argument("--beam", help="work on a cluster instead: options of Apache Beam's pipeline")
    arguments = parser.parse_args()
    cli.guard(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Prepares what the flags say."""
    if arguments.name == "stamps":
        if arguments.strict or arguments.num_workers or arguments.beam:
            raise UserError("stamps: --strict, --num_workers and --beam are for the other datasets")
        prepare_stamps(arguments.out, arguments.raw)
        return
    if arguments.raw is None:
        raise UserError("--raw is missing: the folder of the publisher's files; see docs/benchmarks.md")
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
        )
    except KeyboardInterrupt:
        raise UserError("stopped; the same command goes on from here") from None


if __name__ == "__main__":
    main()
