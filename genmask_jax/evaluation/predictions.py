"""Reads predictions of any model, checks them against a benchmark, and scores them by its protocol.

    {"id": "123", "rle": {"size": [480, 640], "counts": "..."}}     a line of a JSON-lines file
    123.png                                                         or a file of a folder

Masks have the image's own resolution; an empty one means "no target".
"""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath
from PIL import Image
from tqdm import tqdm

from genmask_jax.data import masks
from genmask_jax.data.prepared import records
from genmask_jax.evaluation.benchmarks import Benchmark, Row, make_row
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import UNREADABLE, decode, why_unreadable
from genmask_jax.utils.paths import listed, read_text

Predict = Callable[[masks.Size], np.ndarray]
"""From the size that a mask should have to the mask, bool [H, W]. Raises UserError."""


def score_predictions(benchmark: Benchmark, path: epath.PathLike) -> list[Row]:
    """One row per expression of the benchmark, in its order.

    Raises:
        UserError: an id is missing, occurs twice or is not in the benchmark, or a mask is invalid or of
            another size. The message names it.
    """
    predictions = read_predictions(path)
    items, rows = benchmark.items(), []
    expected = [records.read_id(*items[i]) for i in range(len(items))]
    known = set(expected)
    unknown = [name for name in predictions if name not in known]
    if unknown:
        raise UserError(f"{path}: id {unknown[0]!r}{_more(unknown)} is not in {benchmark.name}")
    missing = [name for name in expected if name not in predictions]
    if missing:
        raise UserError(f"{path}: id {missing[0]!r}{_more(missing)} of {benchmark.name} is missing")
    for i in tqdm(range(len(items)), unit=" expressions", leave=False):
        asked = records.read_expression(*items[i])
        rows.append(make_row(asked, predictions[asked.id](asked.mask.shape)))
    return rows


def _more(ids: list[str]) -> str:
    return f" (and {len(ids) - 1} more)" if len(ids) > 1 else ""


def read_predictions(path: epath.PathLike) -> dict[str, Predict]:
    """Reads predictions, by id; masks are decoded on demand. Raises UserError."""
    path = epath.Path(path)
    if path.is_dir():
        found = {file.stem: _png(file) for file in listed(path, ".png")}
        if not found:
            raise UserError(f"--predictions={path}: there is no PNG in this folder")
        return found
    if not path.exists():
        raise UserError(f"--predictions={path}: there is no such file or folder")
    predictions: dict[str, Predict] = {}
    for where, line in _lines(path):
        name = line.get("id") if isinstance(line, dict) else None
        if (
            not isinstance(name, (str, int))
            or isinstance(name, bool)
            or not isinstance(line.get("rle"), dict)
        ):
            raise UserError(f'{where}: a line must be {{"id": ..., "rle": {{"size": ..., "counts": ...}}}}')
        if str(name) in predictions:
            raise UserError(f"{where}: id {str(name)!r} occurs twice")
        predictions[str(name)] = _rle(line["rle"], f"{where}: id {str(name)!r}")
    return predictions


def _lines(path: epath.Path) -> Iterator[tuple[str, Any]]:
    try:
        lines = read_text(path).split("\n")  # splitlines would also split at other Unicode line ends
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"--predictions={path} is not a JSON-lines file ({error})") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}:{number} is not JSON ({error})") from error


def _rle(rle: dict[str, Any], where: str) -> Predict:
    def predict(size: masks.Size) -> np.ndarray:
        try:
            return masks.decode(masks.from_rle(rle, size), size)
        except (ValueError, TypeError) as error:
            raise UserError(f"{where}: {error}") from error

    return predict


def _pixels(path: epath.Path) -> np.ndarray:
    """A mask's pixels, [H, W], 0 for the background. Those of a palette are what it shows: black is 0.

    Raises:
        UserError: the file cannot be read, or no colour of the palette that is used is black.
    """
    content = b""
    try:
        content = path.read_bytes()
        image = Image.open(io.BytesIO(content))
        image.load()
        if image.mode not in ("P", "PA"):
            pixels = np.asarray(image)
            # With two or four channels, the last is alpha.
            return pixels[..., : 1 + (pixels.shape[-1] > 2) * 2].max(-1) if pixels.ndim == 3 else pixels
        colours = np.asarray(decode(content, background="black")).astype(int)
    except UNREADABLE as error:
        raise UserError(
            f"{path} is not a PNG that Pillow can read: {why_unreadable(error, content)}"
        ) from error
    shown = colours @ [1, 256, 65536]
    if shown.all() and len(np.unique(shown)) > 1:
        raise UserError(f"{path} is not a mask: its palette has no black, so the background cannot be told")
    return shown


def _png(path: epath.Path) -> Predict:
    def predict(size: masks.Size) -> np.ndarray:
        pixels = _pixels(path)
        if pixels.shape != size:
            shape = " x ".join(map(str, pixels.shape))
            raise UserError(f"{path} has {shape} pixels, the image {size[0]} x {size[1]}")
        values = set(np.unique(pixels).tolist()) - {0}
        if len(values) > 1:
            raise UserError(f"{path} is not a mask: besides 0 it has {len(values)} values, not one")
        return pixels > 0

    return predict
