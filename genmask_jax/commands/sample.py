"""Segments the objects that --text names in images, or generates images from --text.

    python launch/sample.py --image=docs/scene.png --text="the star at the top" --out=runs/found
    python launch/sample.py --image=photos --text="the sky;the road" --save=label_map,rle --out=runs/found
    python launch/sample.py --text="a large red circle" --count=4 --out=runs/drawn

docs/scene.png is part of a checkout; with an installed package, use your own image.

--image is a file, a folder, or a pattern such as "photos/*.jpg"; repeat the flag for several. --text is one
phrase, several phrases separated by semicolons, or a file with one phrase per line (--text=@phrases.txt).
Output files are named after their images (scene_mask.png) and have the images' own size. With several
phrases, the names also contain the phrase's number, and the overlay is a label map with a separate legend
file. Images that cannot be read are reported, and the others are segmented.

Without --image, the output is image.png; with --count or several prompts, it is image_1.png, image_2.png, ...
and grid.png, which shows all images with their seeds. --seed=N without --count repeats the image of seed N.
"""

import argparse
import contextlib
import functools
import glob
import io
import json
import sys
import warnings
from typing import Any

import numpy as np
from etils import epath
from PIL import Image
from tqdm import tqdm

from genmask_jax import cli
from genmask_jax.pretrained import DEFAULT_MODEL, directory_of
from genmask_jax.utils.errors import UnknownWordWarning, UserError
from genmask_jax.utils.images import SUFFIXES, read_image
from genmask_jax.utils.paths import listed, make_directory, need_makeable, read_text, write_bytes

VIEWS = ("mask", "overlay", "probability", "uncertainty", "label_map", "rle", "boxes")
DEFAULT_VIEWS = ("mask", "overlay", "probability")


def main() -> None:
    parser = cli.make_parser(__doc__)
    add = parser.add_argument
    add(
        "--text",
        required=True,
        help="what to segment or generate; several texts with ';', or @FILE",
    )
    add(
        "--image",
        action="append",
        default=[],
        help="file, folder or pattern; without it, images are generated",
    )
    add(
        "--checkpoint",
        default=DEFAULT_MODEL,
        help="directory of a trained model, or one in the package (default)",
    )
    add("--step", default="last", help="last, best, or a step")
    add("--out", default="samples", help="directory to write to")
    add("--save", default=",".join(DEFAULT_VIEWS), help=f"any of {','.join(VIEWS)}")
    add("--overwrite", action="store_true", help="replace existing files")
    add(
        "--json",
        action="store_true",
        help="print only one line of JSON per image to stdout",
    )
    add("--seed", type=int, default=0, help="seed of the noise")
    add("--mask_threshold", type=float, help="probability above which a pixel is in the mask")
    add("--mask_steps", type=int, help="passes per mask: 1, or more to refine it")
    add(
        "--mask_samples",
        type=int,
        help="number of noises to average masks over; needed for uncertainty",
    )
    add("--no_target_area", type=float, help="masks of at most this share of the image become empty")
    add("--no_target_score", type=float, help="masks of a lower mean probability become empty")
    add("--count", type=int, default=1, help="images to generate for each prompt, with seeds from --seed on")
    add("--image_steps", type=int, help="sampling steps per generated image")
    add("--guidance_scale", type=float, help="classifier-free guidance scale; 1 is no guidance")
    add("--reason", action="store_true", help="segment a description that the run's Qwen writes of --text")
    arguments = cli.parse(parser)
    cli.reuse_freed_memory()
    cli.use_compilation_cache()
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        cli.guard(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Segments or generates. Raises UserError; exits with status 1 if an image could not be read."""
    from genmask_jax.inference.arguments import read_seed
    from genmask_jax.inference.load import find_checkpoints

    texts = read_texts(arguments.text)
    views = tuple(view for view in arguments.save.split(",") if view)
    unknown = [view for view in views if view not in VIEWS]
    if unknown or not views:
        raise UserError(f"--save={arguments.save}: choose from {', '.join(VIEWS)}")
    if arguments.reason and not arguments.image:
        raise UserError("--reason needs an image to describe; give --image")
    if arguments.count < 1:
        raise UserError(f"--count={arguments.count} must be positive")
    if arguments.image and arguments.count > 1:
        raise UserError(
            f"--count={arguments.count} generates several images of a prompt, but --image is segmented once; "
            "leave one of them out, or average masks of several noises with --mask_samples=8"
        )
    read_seed(arguments.seed)
    read_seed(arguments.seed + arguments.count - 1)
    warnings.simplefilter("ignore", UnknownWordWarning)  # `warn_of_unknown_words` prints a line
    find_checkpoints(arguments.checkpoint, arguments.step)  # raises early
    if arguments.image:
        segment(arguments, texts, views)
    else:
        generate(arguments, texts)


def read_texts(text: str) -> list[str]:
    """Returns the parts of --text, or the lines of its file, without empty ones at the end.

    Raises:
        UserError: there is no text, or one before the last is empty.
    """
    unit = "line" if text.startswith("@") else "part"
    if text.startswith("@"):
        try:
            parts = read_text(epath.Path(text[1:])).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--text={text}: no text file in UTF-8 ({error})") from error
    else:
        parts = text.split(";")
    parts = [part.strip() for part in parts]
    while parts and not parts[-1]:
        parts.pop()
    if not parts:
        raise UserError("--text is empty; give what to segment or generate, such as 'the red star'")
    if "" in parts:
        raise UserError(
            f"--text={text}: {unit} {parts.index('') + 1} is empty; write a text there, or remove it"
        )
    return parts


def segment(arguments: argparse.Namespace, texts: list[str], views: tuple[str, ...]) -> None:
    """Segments all images in batches. Raises UserError, at the end for images that cannot be read."""
    from genmask_jax.inference.segmentation import file_suffixes

    paths = find_images(arguments.image)
    names = unique_names(paths)
    out = need_makeable(arguments.out, "--out")
    suffixes = [suffix for view in views for suffix in file_suffixes(view, len(texts))]
    need_new(out, [f"{name}_{suffix}" for name in names for suffix in suffixes], arguments.overwrite)
    if arguments.reason:
        if len(paths) > 1:
            raise UserError(f"--reason is for one image, but --image names {len(paths)}; give one")
        texts = [describe(arguments, read_image(paths[0]), text) for text in texts]
    segmenter = load_segmenter(arguments)
    warn_of_unknown_words(segmenter.networks.preparer, texts)
    noises = segmenter.sampler.mask_samples if "uncertainty" in views else None
    if noises == 1:
        raise UserError("--save=uncertainty needs several noises; add --mask_samples=8")
    num_failed = segment_batches(
        arguments, segmenter, list(zip(paths, names, strict=True)), texts, views, noises
    )
    if num_failed:
        raise UserError(f"{num_failed} of {len(paths)} images could not be read; the others were segmented")


def load_segmenter(arguments: argparse.Namespace) -> Any:
    """Loads the `Segmenter` of --checkpoint with the sampling options of the flags. Raises UserError."""
    from genmask_jax.inference.segmenter import Segmenter

    return Segmenter.from_pretrained(
        arguments.checkpoint,
        step=arguments.step,
        seed=arguments.seed,
        mask_threshold=arguments.mask_threshold,
        mask_steps=arguments.mask_steps,
        mask_samples=arguments.mask_samples,
        no_target_area=arguments.no_target_area,
        no_target_score=arguments.no_target_score,
    )


def segment_batches(
    arguments: argparse.Namespace,
    segmenter: Any,
    inputs: list[tuple[epath.Path, str]],
    texts: list[str],
    views: tuple[str, ...],
    noises: int | None,
) -> int:
    """Segments pairs (path, output name); saves and prints the results.

    Returns:
        The number of unreadable images. If there is only one image and it is unreadable, UserError is raised.
    """
    from genmask_jax.inference.segmenter import BATCH_SIZE

    batch_size, num_failed = max(1, BATCH_SIZE // len(texts)), 0
    read = read_image if len(inputs) == 1 else functools.partial(read_or_report, arguments)
    with tqdm(total=len(inputs), unit=" images", disable=len(inputs) < 2, file=sys.stderr) as bar:
        for start in range(0, len(inputs), batch_size):
            batch = inputs[start : start + batch_size]
            images = ((path, name, read(path)) for path, name in batch)
            readable = [(path, name, image) for path, name, image in images if image is not None]
            num_failed += len(batch) - len(readable)
            results = segmenter([image for *_, image in readable], texts, noises=noises) if readable else []
            for (path, name, _), result in zip(readable, results, strict=True):
                files = [str(file) for file in result.save(arguments.out, views, name)]
                report_result(arguments, path, result, files)
            bar.update(len(batch))
    return num_failed


def report_result(arguments: argparse.Namespace, path: epath.Path, result: Any, files: list[str]) -> None:
    """Prints the phrases' shares of an image, and the files of its `Segmentation`."""
    line = {"image": str(path), **result.to_dict(), "files": files}
    summaries = (
        f"{100 * row['share']:.1f} % is {row['phrase']!r}"
        if row["found"]
        else f"nothing found for {row['phrase']!r}"
        for row in line["phrases"]
    )
    report(arguments, line, f"{path}: {', '.join(summaries)}; wrote {', '.join(files)}")


def warn_of_unknown_words(preparer: Any, texts: list[str]) -> list[tuple[str, ...]]:
    """Prints the words that the model was not trained on to stderr, and returns those of each text."""
    from genmask_jax.inference.arguments import describe_unknown_words
    from genmask_jax.instruction.base import unknown_words

    unknown = [unknown_words(preparer, text) for text in texts]
    if any(unknown):
        print(f"warning: {describe_unknown_words(texts, unknown)}", file=sys.stderr)
    return unknown


def read_or_report(arguments: argparse.Namespace, path: epath.Path) -> np.ndarray | None:
    """Reads an image; reports an unreadable image and returns None."""
    try:
        return read_image(path)
    except UserError as error:
        tqdm.write(f"skipped: {error}", file=sys.stderr)
        report(arguments, {"image": str(path), "error": str(error)}, "")
        return None


def report(arguments: argparse.Namespace, line: dict[str, Any], message: str) -> None:
    """Prints a line of JSON to the real stdout with --json, else the message, unless it is empty."""
    if arguments.json:
        print(json.dumps(line, ensure_ascii=False), file=sys.__stdout__, flush=True)
    elif message:
        tqdm.write(message)


def find_images(values: list[str]) -> list[epath.Path]:
    """Returns the files that the values of --image name, in order. Raises UserError if a value names none."""
    images: list[epath.Path] = []
    for value in values:
        path = epath.Path(value)
        if path.is_dir():
            matches = listed(path, *SUFFIXES)
        elif path.exists() or not glob.has_magic(value):
            matches = [path]
        else:
            matches = [epath.Path(file) for file in sorted(glob.glob(value, recursive=True))]
        if not matches:
            raise UserError(f"--image={value}: there is no image")
        images += matches
    return list(dict.fromkeys(images))


def unique_names(paths: list[epath.Path]) -> list[str]:
    """Returns a unique prefix of output files for each image: its stem, its name, or its number and name."""
    for names in ([path.stem for path in paths], [path.name for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [f"{i}_{path.name}" for i, path in enumerate(paths, 1)]


def need_new(out: epath.Path, names: list[str], overwrite: bool) -> None:
    """Raises UserError if a file of these names exists in the directory."""
    if overwrite or not out.exists():
        return
    existing = {path.name for path in out.iterdir()}
    conflict = next((name for name in names if name in existing), None)
    if conflict is not None:
        raise UserError(f"--out={out} holds {conflict} already; add --overwrite, or give another directory")


def generate(arguments: argparse.Namespace, texts: list[str]) -> None:
    """Generates `--count` images of each prompt; several images are numbered and also shown in grid.png."""
    from genmask_jax.inference.generator import Generator
    from genmask_jax.utils.sheets import generation_sheet

    out, num_images = need_makeable(arguments.out, "--out"), len(texts) * arguments.count
    names = ["image.png"]
    if num_images > 1:
        names = [*(f"image_{i}.png" for i in range(1, num_images + 1)), "grid.png"]
    need_new(out, names, arguments.overwrite)
    generator = Generator.from_pretrained(arguments.checkpoint, step=arguments.step)
    unknown = dict(zip(texts, warn_of_unknown_words(generator.networks.preparer, texts), strict=True))
    options = {"steps": arguments.image_steps, "guidance_scale": arguments.guidance_scale}
    generated: list[tuple[str, int, Image.Image]] = []
    with tqdm(total=num_images, unit=" images", disable=num_images == 1, file=sys.stderr) as bar:
        for text in texts:
            images = generator.candidates(text, arguments.count, seed=arguments.seed, **options)
            generated += [(text, seed, image) for seed, image in enumerate(images, arguments.seed)]
            bar.update(len(images))
    make_directory(out, "--out")
    for name, (text, seed, image) in zip(names, generated, strict=False):
        path = out / name
        save_png(image, path)
        line = {"prompt": text, "unknown_words": list(unknown[text]), "seed": seed, "files": [str(path)]}
        report(arguments, line, f"wrote {path} (seed {seed})")
    if num_images > 1:
        images = [np.asarray(image) for *_, image in generated]
        captions = [f"{text} (seed {seed})" for text, seed, _ in generated]
        columns = arguments.count if 1 < arguments.count <= 6 else 6  # a row for each prompt
        generation_sheet(images, captions, out / names[-1], columns)


def save_png(image: Image.Image, path: epath.Path) -> None:
    content = io.BytesIO()
    image.save(content, format="PNG")
    write_bytes(path, content.getvalue())


def describe(arguments: argparse.Namespace, image: np.ndarray, text: str) -> str:
    """Returns a description of the object that the question in --text asks for.

    The language model is freed before the run's own encoder is loaded, so that only one of them is in memory.
    """
    from genmask_jax.checkpoints.runs import read_config
    from genmask_jax.config import TrainConfig
    from genmask_jax.inference.reasoner import Reasoner

    directory = directory_of(arguments.checkpoint)
    config = read_config(TrainConfig, directory)
    options = {"dtype": config.compute_dtype, "batch_size": 1, "seed": arguments.seed}
    reasoner = Reasoner(config.instruction, directory / "instruction", **options)
    (description,) = reasoner([image], [text])
    print(f"{text!r} asks for: {description!r}")
    if not description:
        raise UserError("--reason: the language model wrote nothing; rephrase --text, or leave out --reason")
    return description


if __name__ == "__main__":
    main()
