"""Segments what a sentence names in a picture, or draws what a sentence describes.

    python launch/sample.py --checkpoint=runs/tiny --image=scene.png --text="the red star" --out=out
    python launch/sample.py --checkpoint=runs/tiny --text="a red star" --out=out

With --image: writes mask.png, probability.png and overlay.png, at the picture's own size.
Without: picture.png.
"""

import dataclasses

import numpy as np
from absl import flags
from etils import epath
from PIL import Image

from genmask_jax import cli
from genmask_jax.errors import UserError
from genmask_jax.evaluation.sheets import overlay
from genmask_jax.inference.generator import Generator
from genmask_jax.inference.load import load
from genmask_jax.inference.pictures import read_picture, to_model_size, to_picture_size
from genmask_jax.inference.segmenter import Segmenter

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Directory of a training run.", required=True)
TEXT = flags.DEFINE_string("text", None, "What to segment or to draw.", required=True)
IMAGE = flags.DEFINE_string("image", None, "Picture to segment; without it a picture is generated.")
OUT = flags.DEFINE_string("out", "samples", "Directory to write to.")
STEP = flags.DEFINE_string("step", "last", "last, best, or a step.")
SEED = flags.DEFINE_integer("seed", 0, "Of the noise.")
MASK_STEPS = flags.DEFINE_integer(
    "mask_steps", None, "Passes for a mask: 1, or more to refine it.", lower_bound=1
)
MASK_SAMPLES = flags.DEFINE_integer("mask_samples", None, "Noises whose masks are averaged.", lower_bound=1)
IMAGE_STEPS = flags.DEFINE_integer("image_steps", None, "Steps for a picture.", lower_bound=1)
GUIDANCE_SCALE = flags.DEFINE_float("guidance_scale", None, "Of classifier-free guidance; 1 is none.")


def main() -> None:
    if not TEXT.value.strip():
        raise UserError("--text is empty; say what to segment or to draw, such as 'the red star'")
    image = read_picture(IMAGE.value) if IMAGE.value else None
    networks, config, _ = load(CHECKPOINT.value, STEP.value)
    given = {
        "mask_steps": MASK_STEPS.value,
        "mask_samples": MASK_SAMPLES.value,
        "image_steps": IMAGE_STEPS.value,
        "guidance_scale": GUIDANCE_SCALE.value,
    }
    given = {name: value for name, value in given.items() if value is not None}
    sampler = dataclasses.replace(config.sampler, **given)
    out = epath.Path(OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    if image is None:
        generator = Generator(networks, sampler, batch_size=1, seed=SEED.value)
        save(generator([TEXT.value])[0], out / "picture.png")
        return
    segmenter = Segmenter(networks, sampler, batch_size=1, seed=SEED.value)
    probability = segmenter(to_model_size(image, config.data.size)[None], [TEXT.value])[0]
    probability = to_picture_size(probability, image.shape[:2])
    mask = probability > sampler.mask_threshold
    save(mask.astype(np.uint8) * 255, out / "mask.png")
    save(np.round(probability * 255).astype(np.uint8), out / "probability.png")
    save(overlay(image, mask), out / "overlay.png")
    print(f"{100 * mask.mean():.1f} % of the picture is {TEXT.value!r}")


def save(pixels: np.ndarray, path: epath.Path) -> None:
    """Writes uint8 pixels as PNG and says so."""
    with path.open("wb") as file:
        Image.fromarray(pixels).save(file, format="PNG")
    print(f"wrote {path}")


if __name__ == "__main__":
    cli.run(main)
