"""Segments what --text names in images, or generates images from it.

    python launch/sample.py --image=docs/scene.png --text="the star at the top" --out=runs/found
    python launch/sample.py --image=photos --text="the sky;the road" --save=label_map,rle --out=runs/found
    python launch/sample.py --text="a large red circle" --count=4 --out=runs/drawn

The first command's image comes with a checkout; elsewhere, name an image of your own.

--image is a file, a folder, or a pattern such as "photos/*.jpg", and may be given several times. --text is a
phrase, or several: separated by semicolons, or in a file, one a line (--text=@phrases.txt). Files are named
after their images (scene_mask.png), at the images' own size; those of several phrases have a number too, and
the overlay of several phrases is a label map, whose legend is a file of its own. An image that cannot be
read is reported, and the others are segmented.

Without --image: image.png, or with --count or several prompts image_1.png, image_2.png, ... and all of them,
with their seeds, in grid.png. --seed=N without --count repeats the image of seed N.
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
from genmask_jax.pretrained import DEFAULT, directory_of
from genmask_jax.utils.errors import UnknownWordWarning, UserError
from genmask_jax.utils.images import SUFFIXES, read_image
from genmask_jax.utils.paths import listed, make_directory, need_makeable, read_text, write_bytes

VIEWS = ("mask", "overlay", "probability", "uncertainty", "label_map", "rle", "boxes")
IMAGE_VIEWS = ("mask", "overlay", "probability")
"""Written by default."""


def main() -> None:
    parser = cli.make_parser(__doc__)
    add = parser.add_argument
    add("--text", required=True, help="what to segment or to generate; several parts with ';', or @FILE")
    add(
        "--image",
        action="append",
        default=[],
        help="file, folder or pattern; without it, images are generated",
    )
    add("--checkpoint", default=DEFAULT, help="directory of a trained model, or one in the package (default)")
    add("--step", default="last", help="last, best, or a step")
    add("--out", default="samples", help="directory to write to")
    add("--save", default=",".join(IMAGE_VIEWS), help=f"any of {','.join(VIEWS)}")
    add("--overwrite", action="store_true", help="replace files that are there")
    add(
        "--json",
        action="store_true",
        help="one line of JSON for each image on stdout, and nothing else there",
    )
    add("--seed", type=int, default=0, help="of the noise")
    add("--mask_threshold", type=float, help="probability above which a pixel is in the mask")
    add("--mask_steps", type=int, help="passes per mask: 1, or more to refine it")
    add("--mask_samples", type=int, help="noises whose masks are averaged; their spread is the uncertainty")
    add("--no_target_area", type=float, help="a mask of at most this share of the image is empty")
    add("--no_target_score", type=float, help="a mask of a lower mean probability is empty")
    add("--count", type=int, default=1, help="images to generate for each prompt, with seeds from --seed on")
    add("--image_steps", type=int, help="sampling steps per generated image")
    add("--guidance_scale", type=float, help="classifier-free guidance scale; 1 is none")
    add(
        "--reason", action="store_true", help="let the run's Qwen describe what --text asks for; segment that"
    )
    arguments = cli.parse(parser)
    cli.keep_memory()
    cli.use_compilation_cache()
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        cli.guard(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Segments or generates. Raises UserError; exits with status 1 if an image could not be read."""
    from genmask_jax.inference.arguments import read_seed
    from genmask_jax.inference.load import find_checkpoints

    texts = read_texts(arguments.text)
    views = tuple(view for view in arguments.save.split(",") if view)
    wrong = [view for view in views if view not in VIEWS]
    if wrong or not views:
        raise UserError(f"--save={arguments.save}: choose from {', '.join(VIEWS)}")
    if arguments.reason and not arguments.image:
        raise UserError("--reason describes something in an image; give --image")
    if arguments.count < 1:
        raise UserError(f"--count={arguments.count} must be positive")
    if arguments.image and arguments.count > 1:
        raise UserError(
            f"--count={arguments.count} generates several images of a prompt, and --image is segmented once; "
            "leave one of them out, or average masks of several noises with --mask_samples=8"
        )
    read_seed(arguments.seed)
    read_seed(arguments.seed + arguments.count - 1)
    warnings.simplefilter("ignore", UnknownWordWarning)  # `tell_unknown` says it in a line
    find_checkpoints(arguments.checkpoint, arguments.step)  # fail early
    if arguments.image:
        segment(arguments, texts, views)
    else:
        generate(arguments, texts)


def read_texts(text: str) -> list[str]:
    """The parts of --text, or the lines of the file that it names; empty ones at the end are left out.

    Raises:
        UserError: there are none, or one before the last is empty: they are numbered by their places.
    """
    place = "line" if text.startswith("@") else "part"
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
        raise UserError("--text is empty; say what to segment or to generate, such as 'the red star'")
    if "" in parts:
        raise UserError(
            f"--text={text}: {place} {parts.index('') + 1} is empty; write a text there, or remove it"
        )
    return parts


def segment(arguments: argparse.Namespace, texts: list[str], views: tuple[str, ...]) -> None:
    """Segments all images, some at a time, and says which could not be read."""
    from genmask_jax.inference.segmentation import file_suffixes
    from genmask_jax.inference.segmenter import BATCH_SIZE, Segmenter

    paths = find_images(arguments.image)
    names = unique_names(paths)
    out = need_makeable(arguments.out, "--out")
    ends = [end for view in views for end in file_suffixes(view, len(texts))]
    need_new(out, [f"{name}_{end}" for name in names for end in ends], arguments.overwrite)
    if arguments.reason:
        if len(paths) > 1:
            raise UserError(f"--reason asks about one image, and --image names {len(paths)}; give one")
        texts = [describe(arguments, read_image(paths[0]), text) for text in texts]
    segmenter = Segmenter.from_pretrained(
        arguments.checkpoint,
        step=arguments.step,
        seed=arguments.seed,
        mask_threshold=arguments.mask_threshold,
        mask_steps=arguments.mask_steps,
        mask_samples=arguments.mask_samples,
        no_target_area=arguments.no_target_area,
        no_target_score=arguments.no_target_score,
    )
    tell_unknown(segmenter.networks.preparer, texts)
    spread = segmenter.sampler.mask_samples if "uncertainty" in views else None
    if spread == 1:
        raise UserError("--save=uncertainty needs several noises; add --mask_samples=8")
    at_once, failed = max(1, BATCH_SIZE // len(texts)), 0
    work = list(zip(paths, names, strict=True))
    with tqdm(total=len(work), unit=" images", disable=len(work) < 2, file=sys.stderr) as bar:
        for start in range(0, len(work), at_once):
            some = work[start : start + at_once]
            read_one = read_image if len(work) == 1 else functools.partial(try_to_read, arguments)
            tried = ((path, name, read_one(path)) for path, name in some)
            read = [(path, name, image) for path, name, image in tried if image is not None]
            failed += len(some) - len(read)
            results = segmenter([image for *_, image in read], texts, noises=spread) if read else []
            for (path, name, _), result in zip(read, results, strict=True):
                written = [str(file) for file in result.save(out, views, name)]
                line = {"image": str(path), **result.to_dict(), "files": written}
                told = (
                    f"{100 * one['share']:.1f} % is {one['phrase']!r}"
                    if one["found"]
                    else f"nothing found for {one['phrase']!r}"
                    for one in line["phrases"]
                )
                say(arguments, line, f"{path}: {', '.join(told)}; wrote {', '.join(written)}")
            bar.update(len(some))
    if failed:
        raise UserError(f"{failed} of {len(work)} images could not be read; the others were segmented")


def tell_unknown(preparer: Any, texts: list[str]) -> list[tuple[str, ...]]:
    """Prints to stderr which words the model cannot know, and returns those of each text."""
    from genmask_jax.inference.arguments import describe_unknown_words
    from genmask_jax.instruction.base import unknown_words

    unknown = [unknown_words(preparer, text) for text in texts]
    if any(unknown):
        print(f"warning: {describe_unknown_words(texts, unknown)}", file=sys.stderr)
    return unknown


def try_to_read(arguments: argparse.Namespace, path: epath.Path) -> np.ndarray | None:
    """An image, or None after saying why it cannot be read."""
    try:
        return read_image(path)
    except UserError as error:
        tqdm.write(f"left out: {error}", file=sys.stderr)
        say(arguments, {"image": str(path), "error": str(error)}, "")
        return None


def say(arguments: argparse.Namespace, line: dict[str, Any], told: str) -> None:
    """Prints a line of JSON on the real stdout with --json, else what is told."""
    if arguments.json:
        print(json.dumps(line, ensure_ascii=False), file=sys.__stdout__, flush=True)
    elif told:
        tqdm.write(told)


def find_images(given: list[str]) -> list[epath.Path]:
    """The files that --image names, in order. Raises UserError if one names none."""
    found: list[epath.Path] = []
    for one in given:
        path = epath.Path(one)
        if path.is_dir():
            some = listed(path, *SUFFIXES)
        elif path.exists() or not glob.has_magic(one):
            some = [path]
        else:
            some = [epath.Path(file) for file in sorted(glob.glob(one, recursive=True))]
        if not some:
            raise UserError(f"--image={one}: there is no image")
        found += some
    return list(dict.fromkeys(found))


def unique_names(paths: list[epath.Path]) -> list[str]:
    """What the files of each image are named after: its stem, its name, or its number and name."""
    for make in (lambda i, path: path.stem, lambda i, path: path.name):
        names = [make(i, path) for i, path in enumerate(paths)]
        if len(set(names)) == len(names):
            return names
    return [f"{i}_{path.name}" for i, path in enumerate(paths, 1)]


def need_new(out: epath.Path, names: list[str], overwrite: bool) -> None:
    """Raises UserError if one of the files to write is in the directory."""
    if overwrite or not out.exists():
        return
    there = {path.name for path in out.iterdir()}
    old = next((name for name in names if name in there), None)
    if old is not None:
        raise UserError(f"--out={out} holds {old} already; add --overwrite, or give another directory")


def generate(arguments: argparse.Namespace, texts: list[str]) -> None:
    """Generates `--count` images of each prompt; several images are numbered, and shown in grid.png."""
    from genmask_jax.inference.generator import Generator
    from genmask_jax.utils.sheets import generation_sheet

    out, number = need_makeable(arguments.out, "--out"), len(texts) * arguments.count
    names = ["image.png"] if number == 1 else [*(f"image_{i}.png" for i in range(1, number + 1)), "grid.png"]
    need_new(out, names, arguments.overwrite)
    generator = Generator.from_pretrained(arguments.checkpoint, step=arguments.step)
    unknown = dict(zip(texts, tell_unknown(generator.networks.preparer, texts), strict=True))
    options = {"steps": arguments.image_steps, "guidance_scale": arguments.guidance_scale}
    made: list[tuple[str, int, Image.Image]] = []
    with tqdm(total=number, unit=" images", disable=number == 1, file=sys.stderr) as bar:
        for text in texts:
            images = generator.candidates(text, arguments.count, seed=arguments.seed, **options)
            made += [(text, seed, image) for seed, image in enumerate(images, arguments.seed)]
            bar.update(len(images))
    make_directory(out, "--out")
    for name, (text, seed, image) in zip(names, made, strict=False):
        path = out / name
        save(image, path)
        line = {"prompt": text, "unknown_words": list(unknown[text]), "seed": seed, "files": [str(path)]}
        say(arguments, line, f"wrote {path} (seed {seed})")
    if number > 1:
        images = [np.asarray(image) for *_, image in made]
        captions = [f"{text} (seed {seed})" for text, seed, _ in made]
        columns = arguments.count if 1 < arguments.count <= 6 else 6  # a row for each prompt
        generation_sheet(images, captions, out / names[-1], columns)


def save(image: Image.Image, path: epath.Path) -> None:
    content = io.BytesIO()
    image.save(content, format="PNG")
    write_bytes(path, content.getvalue())


def describe(arguments: argparse.Namespace, image: np.ndarray, text: str) -> str:
    """Describes in plain words what the question in --text asks for.

    The language model is loaded before the run's own encoder, and freed again, so that only one of them is in
    memory at a time.
    """
    from genmask_jax.checkpoints.runs import read_config
    from genmask_jax.config import TrainConfig
    from genmask_jax.inference.reasoner import Reasoner

    directory = directory_of(arguments.checkpoint)
    config = read_config(TrainConfig, directory)
    options = {"dtype": config.compute_dtype, "batch_size": 1, "seed": arguments.seed}
    reasoner = Reasoner(config.instruction, directory / "instruction", **options)
    (said,) = reasoner([image], [text])
    print(f"{text!r} asks for: {said!r}")
    if not said:
        raise UserError("--reason: the language model wrote nothing; rephrase --text, or leave out --reason")
    return said


if __name__ == "__main__":
    main()
