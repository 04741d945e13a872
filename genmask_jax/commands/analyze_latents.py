"""Analyses a VAE's latents of masks and of images, clean and with noise.

    pip install "genmask-jax[analysis]"
    python launch/analyze_latents.py --vae=refershapes --data=refershapes --out=runs/latents
    python launch/analyze_latents.py --vae=weights/wan_l --data=stamps --path=data/stamps --out=runs/wan
    python launch/analyze_latents.py --vae=random:wan --data=refershapes --count=64 --out=runs/random

For masks and images at several noise levels: principal components, linear classifiers of object cells and
background cells, kurtosis and standard deviations, the accuracy of a matched filter, and scores of the
decoded latents (docs/analysis.md). Also prints the noise levels in training that fit these latents. --vae is
a run of launch/train_vae.py or launch/train.py, imported weights, or a model in the package. random:NAME is a
control with random weights in the shape of such a VAE, random:wan in the shape of Wan 2.1's. Writes
latents.json and figures as SVG and PNG to --out, and prints a table.
"""

import re

from absl import flags

from genmask_jax import cli
from genmask_jax.utils.errors import ArgumentError, UserError

VAE = flags.DEFINE_string(
    "vae", None, "Directory with a VAE, a name such as refershapes, or random:NAME.", required=True
)
DATA = flags.DEFINE_string("data", None, "Dataset with masks, such as refershapes.", required=True)
PATH = flags.DEFINE_string("path", "", "The --out of prepare_data.py, unless the dataset is built in.")
OUT = flags.DEFINE_string("out", None, "Directory to write to.", required=True)
SPLIT = flags.DEFINE_string("split", "val", "Split of the dataset.")
COUNT = flags.DEFINE_integer("count", 256, "Number of scenes; a quarter is held out.", lower_bound=8)
SIZE = flags.DEFINE_integer(
    "size", None, "Side of the images in pixels; by default that of the VAE's run, or 128.", lower_bound=1
)
SCENES = flags.DEFINE_enum("scenes", "muted", ["muted", "varied"], "Style of the scenes of refershapes.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of noise and random weights.", lower_bound=0)
FLAG_NAMES = {"config.vae": "--vae", "config.data.name": "--data", "config.data.path": "--path"}
"""Names of flags by the config fields in errors."""


def main() -> None:
    from genmask_jax.config import DataConfig
    from genmask_jax.tools.analysis.analyze import AnalysisConfig, analyze
    from genmask_jax.tools.analysis.autoencoder import image_size
    from genmask_jax.utils.paths import need_makeable

    out = need_makeable(OUT.value, "--out")
    size = SIZE.value or image_size(VAE.value)
    data = DataConfig(name=DATA.value, path=PATH.value, size=size, scenes=SCENES.value)
    config = AnalysisConfig(VAE.value, data, SPLIT.value, COUNT.value, SEED.value)
    try:
        analyze(config, out)
    except ArgumentError:
        raise
    except UserError as error:
        raise UserError(
            re.sub("|".join(map(re.escape, FLAG_NAMES)), lambda field: FLAG_NAMES[field[0]], str(error))
        ) from error
    print(f"wrote {OUT.value}: latents.json and figures")


def start() -> None:
    """The command."""
    cli.run(main)


if __name__ == "__main__":
    start()
