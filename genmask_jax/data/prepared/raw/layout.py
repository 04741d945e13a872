"""What the layouts of raw data have in common: folders of splits, images with files beside them, JSON."""

import base64
import binascii
import functools
import json
from typing import Any

from etils import epath

from genmask_jax.data.prepared.raw.problems import Problems
from genmask_jax.errors import UserError
from genmask_jax.images import SUFFIXES
from genmask_jax.paths import listed, read_text

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Names of folders, in lower case, by the split that they hold."""


def split_folders(raw: epath.Path, problems: Problems) -> dict[str, epath.Path]:
    """The folders of `raw` that hold splits; reports images that are in none of them, if there are any.

    Raises:
        UserError: two folders hold the same split.
    """
    folders = [path for path in listed(raw) if path.is_dir()]
    found: dict[str, epath.Path] = {}
    for split, names in SPLITS.items():
        same = [path for path in folders if path.name.lower() in names]
        if len(same) > 1:
            raise UserError(
                f"--raw={raw}: {same[0].name} and {same[1].name} are both the split {split}; merge or rename "
                "one"
            )
        if same:
            found[split] = same[0]
    for path in folders:
        if path not in found.values():
            count = sum(len(listed(folder, *SUFFIXES)) for folder in (path, *listed(path)))
            report = problems.add if count else problems.note
            report(f"{path}: this folder is not read ({count:,} images); splits are {', '.join(SPLITS)}")
    beside = len(listed(raw, *SUFFIXES))
    if found and beside:
        names = ", ".join(path.name for path in found.values())
        problems.add(f"{raw}: {beside:,} images beside the folders {names} are not read")
    return found


def images_by_stem(folder: epath.Path, problems: Problems) -> dict[str, epath.Path]:
    """The images of a folder by their name without its suffix, which names the files beside them."""
    by_stem: dict[str, epath.Path] = {}
    for path in listed(folder, *SUFFIXES):
        if path.stem in by_stem:
            problems.add(f"{path}: another image has that name, {by_stem[path.stem].name}")
        by_stem.setdefault(path.stem, path)
    return by_stem


def captions_of(image: epath.Path, problems: Problems) -> tuple[str, ...]:
    """The lines of X.txt beside the image X.jpg, and what metadata.jsonl beside it says of the image."""
    path = image.with_suffix(".txt")
    try:
        lines = read_text(path).splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        problems.add(f"{path} is not text in UTF-8 ({error})")
        return ()
    said = tuple(line.strip() for line in lines if line.strip())
    return said + _read_metadata(image.parent, problems).get(image.name, ())


METADATA = "metadata.jsonl"
CAPTION_KEYS = ("text", "caption", "captions", "prompt")


@functools.lru_cache(maxsize=64)
def _read_metadata(folder: epath.Path, problems: Problems) -> dict[str, tuple[str, ...]]:
    """Captions by file name, from the metadata.jsonl of a folder of images; {} if there is none.

    A line is {"file_name": "a.jpg", "text": "..."}; the caption's key is one of CAPTION_KEYS.
    """
    path = folder / METADATA
    found: dict[str, tuple[str, ...]] = {}
    if not path.exists():
        return found
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.add(f"{path} is not text in UTF-8 ({error})")
        return found
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            said = next(entry[key] for key in CAPTION_KEYS if entry.get(key))
            texts = [text.strip() for text in ([said] if isinstance(said, str) else said)]
            found[entry["file_name"]] = tuple(text for text in texts if text)
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
            problems.add(f"{path}: line {i} has no file_name and text")
    return found


def is_labelme(content: dict[str, Any]) -> bool:
    """Whether a JSON file is labelme's: it has shapes, and no text as ReasonSeg's files have."""
    return isinstance(content.get("shapes"), list) and "text" not in content


def image_bytes(path: epath.Path) -> bytes:
    """An image file, or the one that an annotation of labelme holds; b"" if that holds none."""
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
        path: of the file, in UTF-8 or as its byte order mark says.
        kind: dict or list.
        fallback: an encoding to try if it is neither.

    Raises:
        UserError: the file is missing, is not JSON, or its top-level value is something else.
    """
    try:
        try:
            text = read_text(path)
        except UnicodeDecodeError:
            if not fallback:
                raise
            text = path.read_bytes().decode(fallback)
        content = json.loads(text)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not text in UTF-8{f' or {fallback}' * bool(fallback)} ({error})"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, kind):
        raise UserError(f"{path} holds no {kind.__name__}")
    return content
