"""Prepares a data set for training and evaluation.

    python launch/prepare_data.py stamps --out=data/stamps

stamps: photographic cut-outs on photographic grounds, from Debian packages: as they are installed, else from
.deb files in --raw, else fetched there with apt-get download (never installed; no root needed).
"""

import argparse
import pathlib

from genmask_jax import cli
from genmask_jax.data import stamps_prepare


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", choices=["stamps"], help="which data set")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="directory to make")
    parser.add_argument(
        "--raw", type=pathlib.Path, help="where .deb files are looked for, or put (default: OUT/packages)"
    )
    arguments = parser.parse_args()
    cli.guard(lambda: stamps_prepare.prepare(arguments.out, arguments.raw))


if __name__ == "__main__":
    main()
