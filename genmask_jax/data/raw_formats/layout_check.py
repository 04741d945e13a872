"""Describes folders that no layout can read, for error messages."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from etils import epath

from genmask_jax.data.raw_formats.folder_names import (
    NO_ROLE,
    files_below,
    folder_role,
    is_annotation,
    parts_below,
)
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import SUFFIXES, UNREADABLE, load_image

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar", ".7z")
SAMPLE_SIZE = 8
"""Number of files whose pixels are read."""
MAX_LISTED = 8
DOCS = "docs/your_photographs.md shows every layout"


@dataclasses.dataclass(frozen=True)
class LayoutCheck:
    """Result of a layout's check of a folder.

    found: evidence for this layout, which can be read; "" if it cannot.
    seen: incomplete evidence, such as masks without a class list; "" if there is none.
    fix: what the user can add to make that readable; "" if there is nothing.
    """

    found: str = ""
    seen: str = ""
    fix: str = ""


def need_folder(raw: epath.Path) -> None:
    """Raises UserError if the path is not a folder with files, and names what it is."""
    name = raw.name.lower()
    if not raw.exists():
        raise UserError(f"--raw={raw}: there is no such folder")
    if not raw.is_dir():
        if name.endswith(ARCHIVES):
            raise UserError(f"--raw={raw} is an archive: unpack it, and give the folder")
        kind = "an image" if name.endswith(SUFFIXES) else "a file"
        raise UserError(f"--raw={raw} is {kind}: give the folder that holds the images")
    if not files_below(raw):
        hidden = sorted(path.name for path in raw.iterdir() if not path.is_dir() or path.name.startswith("_"))
        only = f"has only hidden files and leftovers, {_join(hidden)}" if hidden else "is empty"
        raise UserError(f"--raw={raw}: the folder {only}")


def no_layout_error(folder: epath.Path, raw: epath.Path, checks: Sequence[LayoutCheck]) -> UserError:
    """The error for a folder that no layout can read: what it has, and what would make it readable.

    Args:
        folder: the folder that the user gave.
        raw: the folder that was searched: the same, or one inside it.
        checks: results of all layouts.
    """
    files = files_below(raw)
    images = [
        path
        for path in files
        if path.name.lower().endswith(SUFFIXES)
        and not is_annotation(parts_below(path, raw), path.stem, apart=False)
    ]
    archives = [path for path in files if path.name.lower().endswith(ARCHIVES)]
    seen = [f"{count(images, 'image')}{folders(images, raw)}" if images else "no images"]
    seen += [check.seen for check in checks if check.seen]
    needs = [check.fix for check in checks if check.fix]
    if archives:
        seen.append(f"an archive, {archives[0].relative_to(raw)}")
        needs.insert(0, f"unpack {archives[0].name}")
    if not needs:
        others = [path for path in files if path not in images]
        if others:
            seen.append(f"{count(others, 'other file')}, such as {others[0].relative_to(raw)}")
        if images and folder_role(folder.name) != NO_ROLE:
            needs.append(f"give {folder.parent}, if the masks are there")
        needs.append(
            "give each image, images/X.jpg, a mask of the same name, masks/X.png, and write the phrase of "
            "the masks to phrases.txt, the names of class numbers to classes.txt, or those of colours to "
            "label_colors.txt"
            if images
            else "give the folder that holds the images"
        )
    return UserError(
        f"--raw={folder}: no layout fits. Seen: {'; '.join(seen)}. To make it readable, "
        f"{', or '.join(needs)}; {DOCS}"
    )


def count(items: Sequence, name: str) -> str:
    """ "1 image", "12 images"."""
    return f"{len(items):,} {name}{'s' * (len(items) != 1)}"


def folders(paths: Sequence[epath.Path], raw: epath.Path) -> str:
    """The folders of files: " in images/", " in train/ and val/", " in 12 folders"; "" for RAW itself."""
    where = sorted({str(path.parent.relative_to(raw)) for path in paths})
    if where == ["."]:
        return ""
    if len(where) > 3:
        return f" in {len(where)} folders"
    return f" in {_join([f'{name}/' if name != '.' else 'the folder itself' for name in where])}"


def values(paths: Sequence[epath.Path]) -> str:
    """The pixels of some PNGs: "values 0, 1, 3", or "colours"."""
    unique: set[int] = set()
    for path in paths[:: max(1, len(paths) // SAMPLE_SIZE)]:
        try:
            pixels = np.asarray(load_image(path.read_bytes()))
        except UNREADABLE:
            continue
        if pixels.ndim == 3 and (pixels[..., :1] != pixels[..., :3]).any():
            return "colours"
        unique |= set(np.unique(pixels if pixels.ndim == 2 else pixels[..., 0]).astype(int).tolist())
    shown = [str(value) for value in sorted(unique)]
    more = f", ... ({len(shown)} in all)" if len(shown) > MAX_LISTED else ""
    return f"values {', '.join(shown[:MAX_LISTED])}{more}" if shown else "pixels that cannot be read"


def _join(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"; for many names, the first and the number of others."""
    names = (
        [*names[:MAX_LISTED], f"{len(names) - MAX_LISTED:,} more"]
        if len(names) > MAX_LISTED + 1
        else list(names)
    )
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
