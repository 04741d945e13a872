"""What the layouts of raw data have in common: folders of splits, images with files beside them, JSON."""

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
