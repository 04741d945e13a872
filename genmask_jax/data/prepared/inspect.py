"""Shows how `prepare` would read raw data; writes only a contact sheet."""

import collections
import math
from typing import Any

import numpy as np
from etils import epath
from rich import box
from rich.table import Table
from tqdm import tqdm

from genmask_jax.data import masks
from genmask_jax.data.prepared.builders import open_builders
from genmask_jax.data.prepared.prepare import MAX_PRINTED, spread
from genmask_jax.data.raw_formats.plan import Plan
from genmask_jax.utils.console import console
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import decode
from genmask_jax.utils.paths import make_directory
from genmask_jax.utils.sheets import generation_sheet, overlay


def inspect(name: str, raw: epath.Path, sheet: epath.Path, format: str = "") -> None:
    """Prints the counts of each split and class and all problems, and draws a contact sheet.

    Args:
        name: a key of `builders.BUILDERS`.
        raw: folder of the publisher's files.
        sheet: path of the PNG to write. If the data are split in several ways, the last one is shown.
        format: see `prepare`.

    Raises:
        UserError: the raw files are missing or invalid, or the sheet cannot be written.
    """
    make_directory(sheet.parent, "--inspect")
    if sheet.is_dir():
        raise UserError(f"--inspect={sheet} is a folder; give a file, such as {sheet / 'sheet.png'}")
    for builder in open_builders(name, raw, sheet.parent, format):
        plan = builder.plan(raw)
        examples, problems = _read(plan)
        _print_table(raw, plan, examples)
        lines = [("kept", line) for line in plan.problems.notes]
        lines += [("left out", line) for line in plan.problems.left_out + problems]
        for label, line in lines[:MAX_PRINTED]:
            print(f"{label}: {line}")
        if len(lines) > MAX_PRINTED:
            print(f"... and {len(lines) - MAX_PRINTED} more")
        split = next(iter(plan.splits))
        images, texts = _draw(examples[split])
        generation_sheet(images, texts, sheet)
        count = f"{len(images)} example{'s' if len(images) != 1 else ''}"
        print(f"wrote {sheet}, with {count} of {split}; nothing else was written")


def _read(plan: Plan) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """The examples by split, and the reasons for images that are left out."""
    examples: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    problems = []
    with tqdm(total=sum(map(len, plan.splits.values())), unit=" images", leave=False) as bar:
        for split, images in plan.splits.items():
            for image in images:
                bar.update()
                try:
                    example = image.example()
                except ValueError as error:
                    problems.append(str(error))
                else:
                    examples[split].append(example)
    return examples, problems


def _print_table(raw: epath.Path, plan: Plan, examples: dict[str, list[dict[str, Any]]]) -> None:
    """Prints images, captions and expressions by split, and images and mean share of pixels by class."""
    splits = list(plan.splits)
    table = Table(title=str(raw), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    for split in splits:
        table.add_column(split, justify="right")
    counts = {
        "images": [len(examples[split]) for split in splits],
        "captions": [sum(len(e["captions"]) for e in examples[split]) for split in splits],
        "expressions": [sum(len(e["expressions"]) for e in examples[split]) for split in splits],
    }
    for label, numbers in counts.items():
        table.add_row(label, *(f"{number:,}" for number in numbers))
    for name in plan.classes:
        shares = [_shares(examples[split], name) for split in splits]
        cells = (f"{len(s):,} ({np.mean(s):.1%} of pixels)" if s else "0" for s in shares)
        table.add_row(f"  {name}", *cells)
    console().print(table)


def _shares(examples: list[dict[str, Any]], text: str) -> list[float]:
    """The share of the image that the expression's mask covers, for each image with the expression."""
    shares = []
    for example in examples:
        for expression in example["expressions"]:
            if expression["text"] == text:
                size = (example["height"], example["width"])
                counts = example["targets"][expression["target"]]["counts"]
                shares.append(masks.area(counts, size) / math.prod(size))
    return shares


def _draw(examples: list[dict[str, Any]]) -> tuple[list[np.ndarray], list[str]]:
    """Images and texts of some expressions with their masks, or of some captions."""
    items = [(e, i) for e in examples for i in range(len(e["expressions"]))]
    images, texts = [], []
    for index in spread(len(items)):
        example, i = items[index]
        expression = example["expressions"][i]
        size = (example["height"], example["width"])
        mask = masks.decode(example["targets"][expression["target"]]["counts"], size)
        images.append(overlay(_image(example), mask))
        texts.append(expression["text"])
    if not items:
        captioned = [example for example in examples if example["captions"]]
        chosen = [captioned[index] for index in spread(len(captioned))]
        images, texts = [_image(e) for e in chosen], [e["captions"][0] for e in chosen]
    return images, texts


def _image(example: dict[str, Any]) -> np.ndarray:
    return np.asarray(decode(example["image"], upright=example["turned"]))
