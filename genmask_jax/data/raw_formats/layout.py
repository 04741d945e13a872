"""Shared by the layouts of raw data: folders of splits, files next to images, metadata, JSON."""

import base64
import binascii
import csv
import functools
from typing import Any

from etils import epath

from genmask_jax.data.raw_formats.names import is_text
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import SUFFIXES
from genmask_jax.utils.paths import is_file, listed, need_regular, parse_json, read_text

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Names of folders, in lower case, by split."""


def split_folders(raw: epath.Path, problems: Problems) -> dict[str, epath.Path]:
    """The folders of splits in `raw`, by split. Reports images outside of them.

    Raises:
        UserError: two folders have the same split.
    """
    folders = [path for path in listed(raw) if path.is_dir()]
    by_split: dict[str, epath.Path] = {}
    for split, names in SPLITS.items():
        matches = [path for path in folders if path.name.lower() in names]
        if len(matches) > 1:
            raise UserError(
                f"--raw={raw}: {matches[0].name} and {matches[1].name} are both the split {split}; merge or "
                "rename one of them"
            )
        if matches:
            by_split[split] = matches[0]
    for path in folders:
        if path not in by_split.values():
            count = sum(len(listed(folder, *SUFFIXES)) for folder in (path, *listed(path)))
            report = problems.add if count else problems.note
            report(f"{path}: this folder is not read ({count:,} images); it is not {', '.join(SPLITS)}")
    outside = len(listed(raw, *SUFFIXES))
    if by_split and outside:
        names = ", ".join(path.name for path in by_split.values())
        problems.add(f"{raw}: {outside:,} images next to the folders {names} are not read")
    return by_split


def images_by_stem(folder: epath.Path, problems: Problems) -> dict[str, epath.Path]:
    """The images of a folder by stem."""
    by_stem: dict[str, epath.Path] = {}
    for path in listed(folder, *SUFFIXES):
        if path.stem in by_stem:
            problems.add(f"{path}: another image has the same name, {by_stem[path.stem].name}")
        by_stem.setdefault(path.stem, path)
    return by_stem


def captions_of(image: epath.Path, problems: Problems) -> tuple[str, ...]:
    """Captions of X.jpg: the lines of X.txt next to it, and its metadata there or one folder up."""
    captions = lines_of(image, problems)
    for folder in (image.parent, image.parent.parent):  # "images/X.jpg"
        captions += _captions_by_name(folder, problems).get(str(image.relative_to(folder)), ())
    return captions


def lines_of(image: epath.Path, problems: Problems) -> tuple[str, ...]:
    """The lines of X.txt next to X.jpg."""
    path = image.with_suffix(".txt")
    try:
        lines = read_text(path).splitlines() if is_file(path) else []
    except (OSError, UnicodeDecodeError) as error:
        problems.add(f"{path} is not text in UTF-8 ({error})")
        return ()
    return tuple(line.strip() for line in lines if is_text(line))


METADATA = ("metadata.jsonl", "metadata.csv")
"""Names of the file with a row for each image in Hugging Face's imagefolder."""
CAPTION_KEYS = ("text", "caption", "captions", "prompt")


def read_metadata(path: epath.Path, problems: Problems) -> list[tuple[int, dict[str, Any]]]:
    """Rows of a metadata file, each with its line number."""
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.add(f"{path} is not text in UTF-8 ({error})")
        return []
    if path.suffix == ".csv":
        try:
            table = list(csv.DictReader(lines, restkey="", skipinitialspace=True))
        except csv.Error as error:
            problems.add(f"{path} is not a table ({error})")
            return []
        return list(enumerate(table, 2))
    rows = []
    for i, line in enumerate(lines, 1):
        try:
            row = parse_json(line) if line.strip() else None
        except ValueError:
            row = ()
        if isinstance(row, dict):
            rows.append((i, row))
        elif row is not None:
            problems.add(f"{path}: line {i} is not a JSON object")
    return rows


def captions_of_row(row: dict[str, Any]) -> tuple[str, ...]:
    """The texts of the first of CAPTION_KEYS in the row."""
    value = next((row[key] for key in CAPTION_KEYS if row.get(key)), ())
    texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(text.strip() for text in texts if is_text(text))


@functools.lru_cache(maxsize=64)
def _captions_by_name(folder: epath.Path, problems: Problems) -> dict[str, tuple[str, ...]]:
    """Captions by file name, from the metadata of a folder of images; {} without metadata."""
    captions: dict[str, tuple[str, ...]] = {}
    for name in METADATA:
        for i, row in read_metadata(folder / name, problems) if is_file(folder / name) else ():
            texts, file = captions_of_row(row), row.get("file_name")
            if texts and isinstance(file, str):
                captions[file] = captions.get(file, ()) + texts
            else:
                problems.add(f"{folder / name}: line {i} has no file_name or no text")
    return captions


def is_labelme(content: dict[str, Any]) -> bool:
    """Whether a JSON file is labelme's: it has shapes but, unlike ReasonSeg's, no text."""
    return isinstance(content.get("shapes"), list) and "text" not in content


def image_bytes(path: epath.Path) -> bytes:
    """The content of an image file, or of the image inside a labelme annotation; b"" if it has none."""
    if not path.name.lower().endswith(".json"):
        return path.read_bytes()
    try:
        content = read_json(path, dict)
        data = content.get("imageData") if is_labelme(content) else None
        return base64.b64decode(data, validate=True) if isinstance(data, str) else b""
    except (UserError, binascii.Error):
        return b""


def read_json(path: epath.Path, kind: type, fallback: str = "") -> Any:
    """Reads a JSON file whose top-level value is a `kind`.

    Args:
        path: path of the file, in UTF-8 or with a byte order mark.
        kind: dict or list.
        fallback: another encoding to try.

    Raises:
        UserError: the file is missing, is not valid JSON, or its top-level value is not a `kind`.
    """
    try:
        need_regular(path)
        try:
            text = read_text(path)
        except UnicodeDecodeError:
            if not fallback:
                raise
            text = path.read_bytes().decode(fallback)
        content = parse_json(text)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not text in UTF-8{f' or {fallback}' * bool(fallback)} ({error})"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, kind):
        raise UserError(f"{path}: the top-level value is not a {kind.__name__}")
    return content
