"""The class list of a folder: names of the numbers or colours of its masks."""

import dataclasses
import re

from etils import epath

from genmask_jax.data.raw_formats.class_files import Row, read_rows
from genmask_jax.data.raw_formats.folder_names import files_below
from genmask_jax.data.raw_formats.names import is_class, is_ignored, is_text, phrase
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import SUFFIXES
from genmask_jax.utils.paths import listed

FILE_NAMES = re.compile(
    r"(_?class(es)?|labels?|names|categor(y|ies)|colou?rs?|palette|objectinfo150|obj|coco|voc|id2label|config|meta|data|dataset)"
    r"([_ -]?(names?|labels?|list|dict|map|colou?rs?|palette|seg))*\.(txt|csv|tsv|names|json|ya?ml)",
    re.I,
)
"""Names of files of class lists; those of GENERIC_FILES may also hold something else."""
GENERIC_FILES = re.compile(
    r"(labels?|config|meta|data(set)?|label|coco|voc|obj|colou?rs?|palette)\.(json|csv|tsv)|data\.txt", re.I
)
MAX_LISTED = 5
"""Largest number of items listed in a message."""


@dataclasses.dataclass(frozen=True)
class ClassList:
    """The classes of a folder.

    names: names as written, by number.
    colours: names as written, by colour (0xRRGGBB).
    source: the file or files of the list.
    counted: whether the numbers are the positions of the names in the list.
    standard: whether it is a standard list, not the folder's own.
    numbering: numbering of Cityscapes' files (see `cityscapes`); "" for other files.
    """

    names: dict[int, str]
    colours: dict[int, str]
    source: str
    counted: bool = False
    standard: bool = False
    numbering: str = ""

    def __len__(self) -> int:
        return max(len(self.names), len(self.colours))


def read_class_list(raw: epath.Path) -> ClassList | None:
    """The class list of `raw`, from files in it, or else in its subfolders; None if there is none.

    Raises:
        UserError: a file is invalid, or two files differ.
    """
    for folders in ([raw], [path for path in listed(raw) if path.is_dir()]):
        rows_by_path = {
            path: rows for folder in folders for path in _files(folder) if (rows := _rows(path, raw))
        }
        if rows_by_path:
            return _merge(rows_by_path)
    return None


def _files(folder: epath.Path) -> list[epath.Path]:
    return [path for path in listed(folder) if FILE_NAMES.fullmatch(path.name) and not path.is_dir()]


def _rows(path: epath.Path, raw: epath.Path) -> list[Row]:
    """The checked rows of a file; [] for a file of GENERIC_FILES that holds something else."""
    try:
        rows = read_rows(path)
        if not rows:
            raise UserError(f"{path} has no class name; write a name in each line")
    except UserError:
        if GENERIC_FILES.fullmatch(path.name):
            return []
        raise
    if GENERIC_FILES.fullmatch(path.name) and _are_images([row.name for row in rows], raw):
        return []
    for what in ("number", "colour"):
        names: dict[int, str] = {}
        for row in rows:
            value = getattr(row, what)
            if not is_text(row.name) or not phrase(row.name):
                raise UserError(f"{path}: the number {row.number} has an empty name")
            if value is not None and phrase(names.setdefault(value, row.name)) != phrase(row.name):
                shown = value if what == "number" else shown_colour(value)
                raise UserError(
                    f"{path}: the {what} {shown} has two names, {names[value]!r} and {row.name!r}"
                )
    return rows


def _are_images(names: list[str], raw: epath.Path) -> bool:
    """Whether the names are those of images: image files, or all of them stems of images below `raw`."""
    if any(cell.strip().lower().endswith(SUFFIXES) for name in names for cell in re.split(r"[,;\t]", name)):
        return True
    stems = {path.stem for path in files_below(raw) if path.name.lower().endswith(SUFFIXES)}
    return stems.issuperset(names)


def _merge(rows_by_path: dict[epath.Path, list[Row]]) -> ClassList:
    """One list from the rows of all files. Raises UserError if two files differ."""
    names: dict[int, str] = {}
    colours: dict[int, str] = {}
    for what, joined in (("number", names), ("colour", colours)):
        first: epath.Path | None = None
        for path, rows in rows_by_path.items():
            new = {getattr(row, what): row.name for row in rows if getattr(row, what) is not None}
            if new and first is not None:
                _need_same_names(what, first, joined, path, new)
            elif new:
                first = path
            joined.update({**new, **joined})
    counted = all(row.counted for rows in rows_by_path.values() for row in rows if row.number is not None)
    return ClassList(names, colours, " and ".join(path.name for path in rows_by_path), counted)


def _need_same_names(
    what: str, first: epath.Path, a: dict[int, str], other: epath.Path, b: dict[int, str]
) -> None:
    phrases = [{key: phrase(name) for key, name in names.items() if not is_ignored(name)} for names in (a, b)]
    for key in sorted({*phrases[0], *phrases[1]}):
        first_name, second_name = (names.get(key) for names in phrases)
        if first_name != second_name:
            shown = key if what == "number" else shown_colour(key)
            raise UserError(
                f"{first} and {other} have different names: the {what} {shown} is {first_name or 'missing'} "
                f"in the first and {second_name or 'missing'} in the second; delete the wrong file"
            )


def shown_colour(colour: int) -> str:
    """A colour 0xRRGGBB as (r, g, b)."""
    return f"({colour >> 16}, {colour >> 8 & 255}, {colour & 255})"


def report_unused(classes: dict[int, str], seen: set[int], source: str, problems: Problems) -> None:
    """Reports classes that do not occur, because the list may have other numbers than the masks.

    Args:
        classes: names by number or colour.
        seen: numbers or colours in masks or polygons.
        source: name of the list.
        problems: receives the report.
    """
    shown = {phrase(classes[key]) for key in seen if key in classes}
    unseen = [name for name in dict.fromkeys(map(phrase, classes.values())) if name not in shown]
    unseen = [name for name in unseen if is_class(name)]
    if unseen:
        more = f" and {len(unseen) - MAX_LISTED} more" if len(unseen) > MAX_LISTED else ""
        problems.add(
            f"{source}: {len(unseen)} of {len(classes)} classes do not occur "
            f"({', '.join(unseen[:MAX_LISTED])}{more}); check that the numbers match the annotations"
        )
