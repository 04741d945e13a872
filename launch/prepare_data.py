"""Prepares a data set for training and evaluation.

    python launch/prepare_data.py stamps --out=data/stamps

stamps: photographic cut-outs on photographic grounds, from Debian packages (fetched with apt-get download,
never installed; no root needed). With --raw=DIR the .deb files are looked for, and kept, in DIR.
"""

import argparse
import pathlib

from genmask_jax import cli
from genmask_jax.data.stamps_prepare import PACKAGES, prepare
from genmask_jax.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", choices=["stamps"], help="which data set")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="directory to make")
    parser.add_argument("--raw", type=pathlib.Path, help="where the .deb files are, or are put")
    arguments = parser.parse_args()
    try:
        index = prepare(arguments.out, arguments.raw)
    except UserError as error:
        cli.fail(str(error))
    seen = sum(entry["seen"] for entry in index["objects"])
    names = len({entry["name"] for entry in index["objects"]})
    print(
        f"{arguments.out}: {len(index['objects'])} objects ({names} names; {seen} seen in training, "
        f"{len(index['objects']) - seen} not), {len(index['grounds'])} grounds"
    )
    print("licences: " + "; ".join(f"{name} {licence}" for name, licence in PACKAGES.items()))


if __name__ == "__main__":
    main()
