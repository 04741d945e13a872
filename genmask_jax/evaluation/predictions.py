"""Reads predictions of any model, checks them against a benchmark, and scores them.

    {"id": "123", "rle": {"size": [480, 640], "counts": "..."}}     a line of a JSON-lines file
    123.png                                                         or a file in a folder

Masks have the image's own resolution; an empty mask means "no target".
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath
from tqdm import tqdm

from genmask_jax.data import masks
from genmask_jax.data.prepared import records
from genmask_jax.evaluation.benchmarks import Benchmark, Row, make_row
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import UNREADABLE, decode_mask, load_image, why_unreadable
from genmask_jax.utils.paths import listed, parse_json, read_text

MaskReader = Callable[[masks.Size], np.ndarray]
"""Reads a mask, bool [H, W], of the expected size. Raises UserError if it has another size or is invalid."""


def score_predictions(benchmark: Benchmark, path: epath.PathLike) -> list[Row]:
    """Returns one row per expression of the benchmark, in its order.

    Raises:
        UserError: an id is missing, occurs twice or is not in the benchmark, or a mask is invalid or has the
            wrong size. The message names the id.
    """
    predictions = read_predictions(path)
    items, rows = benchmark.items(), []
    expected = [records.read_id(*items[i]) for i in range(len(items))]
    expected_set = set(expected)
    unknown = [name for name in predictions if name not in expected_set]
    if unknown:
        raise UserError(f"{path}: id {unknown[0]!r}{_more(unknown)} is not in {benchmark.name}")
    missing = [name for name in expected if name not in predictions]
    if missing:
        raise UserError(f"{path}: id {missing[0]!r}{_more(missing)} of {benchmark.name} is missing")
    for i in tqdm(range(len(items)), unit=" expressions", leave=False):
        expression = records.read_expression(*items[i])
        read_mask = predictions[expression.id]
        rows.append(make_row(expression, read_mask(expression.mask.shape)))
    return rows


def _more(ids: list[str]) -> str:
    return f" (and {len(ids) - 1} more)" if len(ids) > 1 else ""


def read_predictions(path: epath.PathLike) -> dict[str, MaskReader]:
    """Returns a mask reader for each id. Raises UserError."""
    path = epath.Path(path)
    if path.is_dir():
        readers = {file.stem: _png_reader(file) for file in listed(path, ".png")}
        if not readers:
            raise UserError(f"--predictions={path}: there is no PNG in this folder")
        return readers
    if not path.exists():
        raise UserError(f"--predictions={path}: there is no such file or folder")
    predictions: dict[str, MaskReader] = {}
    for location, line in _lines(path):
        name = line.get("id") if isinstance(line, dict) else None
        if (
            not isinstance(name, (str, int))
            or isinstance(name, bool)
            or not isinstance(line.get("rle"), dict)
        ):
            raise UserError(
                f'{location}: a line must be {{"id": ..., "rle": {{"size": ..., "counts": ...}}}}'
            )
        if str(name) in predictions:
            raise UserError(f"{location}: id {str(name)!r} occurs twice")
        predictions[str(name)] = _rle_reader(line["rle"], f"{location}: id {str(name)!r}")
    return predictions


def _lines(path: epath.Path) -> Iterator[tuple[str, Any]]:
    """Yields ("FILE:LINE", parsed JSON) of each nonempty line."""
    try:
        lines = read_text(path).split("\n")  # splitlines would also split at other Unicode line ends
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"--predictions={path} is not a JSON-lines file ({error})") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield f"{path}:{number}", parse_json(line)
            except ValueError as error:
                raise UserError(f"{path}:{number} is not JSON ({error})") from error


def _rle_reader(rle: dict[str, Any], location: str) -> MaskReader:
    def read(size: masks.Size) -> np.ndarray:
        try:
            return masks.decode(masks.from_rle(rle, size), size)
        except (ValueError, TypeError) as error:
            raise UserError(f"{location}: {error}") from error

    return read


def _pixels(path: epath.Path) -> np.ndarray:
    """Reads a mask's pixels [H, W], 0 for the background: what is black or transparent (see `decode_mask`).

    Raises:
        UserError: the file cannot be read, or has a palette or transparency and no black.
    """
    content = b""
    try:
        content = path.read_bytes()
        image = load_image(content)
        if image.mode != "P" and not image.has_transparency_data:
            pixels = np.asarray(image)
            return pixels.max(-1) if pixels.ndim == 3 else pixels
        colours = decode_mask(content).astype(int)
    except UNREADABLE as error:
        raise UserError(
            f"{path} is not a PNG that Pillow can read: {why_unreadable(error, content)}"
        ) from error
    codes = colours @ [1, 256, 65536]
    if codes.all() and len(np.unique(codes)) > 1:
        raise UserError(f"{path} is not a mask: it has no black, so the background is unknown")
    return codes


def _png_reader(path: epath.Path) -> MaskReader:
    def read(size: masks.Size) -> np.ndarray:
        pixels = _pixels(path)
        if pixels.shape != size:
            shape = " x ".join(map(str, pixels.shape))
            raise UserError(f"{path} has {shape} pixels, the image {size[0]} x {size[1]}")
        values = set(np.unique(pixels).tolist()) - {0}
        if len(values) > 1:
            raise UserError(f"{path} is not a mask: it has {len(values)} values besides 0; it must have one")
        return pixels > 0

    return read
