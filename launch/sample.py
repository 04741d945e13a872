"""Segments the object that --text names in an image, or generates an image from --text.

    python launch/sample.py --text="a red star" --out=out
    python launch/sample.py --image=scene.png --text="the red star" --out=out
    python launch/sample.py --checkpoint=runs/tiny --text="a red star" --out=out
    python launch/sample.py --image=scene.png --text="the red star;the large circle" --out=out
    python launch/sample.py --checkpoint=runs/l --image=park.jpg --text="Which of these can fly?" --reason

With --image: writes mask.png, probability.png and overlay.png, at the image's own size. With several phrases,
separated by semicolons: label_map.png, where each pixel has the colour of its most probable phrase if that is
above the threshold, and labels.png, the phrase's number from 1 on, or 0.
Without: writes image.png.
"""

import numpy as np
from absl import flags
from etils import epath
from PIL import Image

from genmask_jax import cli
from genmask_jax.config import SamplerConfig, TrainConfig, with_given
from genmask_jax.errors import UserError
from genmask_jax.images import read_image, to_model_size
from genmask_jax.inference.image_sampler import ImageSampler
from genmask_jax.inference.load import load
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.inference.masks import label_map, to_image_size, to_mask
from genmask_jax.inference.reasoner import Reasoner
from genmask_jax.paths import make_directory
from genmask_jax.pretrained import DEFAULT, directory_of
from genmask_jax.runs import find_step, read_config
from genmask_jax.sheets import overlay, paint_labels, with_legend
from genmask_jax.system import Networks

CHECKPOINT = flags.DEFINE_string(
    "checkpoint", DEFAULT, "Directory of a trained model; by default, the one that comes with the package."
)
TEXT = flags.DEFINE_string("text", None, "What to segment or to generate.", required=True)
REASON = flags.DEFINE_bool(
    "reason",
    False,
    "Let the run's Qwen describe what --text asks for, and segment that.",
)
IMAGE = flags.DEFINE_string("image", None, "Image to segment; without it an image is generated.")
OUT = flags.DEFINE_string("out", "samples", "Directory to write to.")
STEP = flags.DEFINE_string("step", "last", "last, best, or a step.")
SEED = flags.DEFINE_integer("seed", 0, "Of the initial noise.")
MASK_STEPS = flags.DEFINE_integer(
    "mask_steps", None, "Passes per mask: 1, or more to refine it.", lower_bound=1
)
MASK_SAMPLES = flags.DEFINE_integer("mask_samples", None, "Noises whose masks are averaged.", lower_bound=1)
IMAGE_STEPS = flags.DEFINE_integer("image_steps", None, "Sampling steps per image.", lower_bound=1)
GUIDANCE_SCALE = flags.DEFINE_float("guidance_scale", None, "Classifier-free guidance scale; 1 is none.")


def main() -> None:
    if not TEXT.value.strip():
        raise UserError("--text is empty; say what to segment or to generate, such as 'the red star'")
    image = read_image(IMAGE.value) if IMAGE.value else None
    if REASON.value and image is None:
        raise UserError("--reason describes something in an image; give --image")
    find_step(directory_of(CHECKPOINT.value), STEP.value)  # fail early
    out = make_directory(OUT.value, "--out")
    text = describe(image) if REASON.value else TEXT.value
    networks, config, _ = load(CHECKPOINT.value, STEP.value)
    sampler = with_given(
        config.sampler,
        mask_steps=MASK_STEPS.value,
        mask_samples=MASK_SAMPLES.value,
        image_steps=IMAGE_STEPS.value,
        guidance_scale=GUIDANCE_SCALE.value,
    )
    if image is None:
        generator = ImageSampler(networks, sampler, batch_size=1, seed=SEED.value)
        save(generator([TEXT.value])[0], out / "image.png")
        return
    phrases = [part.strip() for part in text.split(";")]
    if len(phrases) > 1:
        save_label_map(networks, sampler, image, phrases, out)
        return
    segmenter = MaskSampler(networks, sampler, batch_size=1, seed=SEED.value)
    probability = segmenter(to_model_size(image, config.data.size)[None], [text])[0]
    mask, _ = to_mask(probability, image.shape[:2], sampler)
    probability = to_image_size(probability, image.shape[:2])
    save(mask.astype(np.uint8) * 255, out / "mask.png")
    save(np.round(probability * 255).astype(np.uint8), out / "probability.png")
    save(overlay(image, mask), out / "overlay.png")
    print(f"{100 * mask.mean():.1f} % of the image is {networks.preparer.read(text)!r}")


def save_label_map(
    networks: Networks, sampler: SamplerConfig, image: np.ndarray, phrases: list[str], out: epath.Path
) -> None:
    """Segments the image by all phrases at once; writes label_map.png and labels.png."""
    segmenter = MaskSampler(networks, sampler, batch_size=len(phrases), seed=SEED.value)
    probabilities = segmenter.of_phrases(to_model_size(image, networks.size)[None], phrases)[0]
    labels = label_map(probabilities, image.shape[:2], sampler.mask_threshold)
    save(with_legend(paint_labels(image, labels), phrases), out / "label_map.png")
    save((labels + 1).astype(np.uint8), out / "labels.png")
    for i, phrase in enumerate(phrases):
        print(f"{100 * (labels == i).mean():.1f} % of the image is {phrase!r}")


def describe(image: np.ndarray) -> str:
    """Describes in plain words what the question --text asks for.

    The language model is loaded before the run's own encoder, and freed again, so that only one of them is in
    memory at a time.
    """
    directory = directory_of(CHECKPOINT.value)
    config = read_config(TrainConfig, directory)
    options = {"dtype": config.compute_dtype, "batch_size": 1, "seed": SEED.value}
    reasoner = Reasoner(config.instruction, directory / "instruction", **options)
    (text,) = reasoner([image], [TEXT.value])
    print(f"{TEXT.value!r} asks for: {text!r}")
    if not text:
        raise UserError("--reason: the language model wrote nothing; rephrase --text, or leave out --reason")
    return text


def save(pixels: np.ndarray, path: epath.Path) -> None:
    """Writes uint8 pixels as PNG and prints the path."""
    with path.open("wb") as file:
        Image.fromarray(pixels).save(file, format="PNG")
    print(f"wrote {path}")


if __name__ == "__main__":
    cli.run(main)
