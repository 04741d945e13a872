"""Images with black-and-white masks, and a phrase for all masks or for each image.

    RAW/X.jpg, RAW/X_mask.png (or RAW/images/X.jpg, RAW/masks/X.png), RAW/phrases.txt

phrases.txt has one line, the phrase of all masks, or lines for each image: its name, a tab or a comma, its
phrase. They may be quoted as in CSV, and have a heading such as `name,phrase`. All masks together have two
values; the brighter one is the object. Several masks of an image (X_mask.png, X_mask_1.png) are united,
except those with their own line in phrases.txt.
"""

import itertools
import re
from collections.abc import Sequence

from etils import epath

from genmask_jax.data import masks
from genmask_jax.data.raw_formats.black_and_white import need_both, threshold_of, values_of
from genmask_jax.data.raw_formats.label_files import LABEL_SUFFIXES
from genmask_jax.data.raw_formats.layout import captions_of
from genmask_jax.data.raw_formats.layout_check import LayoutCheck
from genmask_jax.data.raw_formats.mask_files import plan_masks
from genmask_jax.data.raw_formats.pairs import Pair, Tree, find_pairs, group_by_split
from genmask_jax.data.raw_formats.plan import Plan, PlannedImage
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.data.raw_formats.versions import choose_versions
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import SUFFIXES
from genmask_jax.utils.paths import is_file, read_text

PHRASES = "phrases.txt"
HEADING = re.compile(
    r"(image|file|mask)?[ _]?(name|id|path)?\t(phrase|text|caption|expression|description|prompt|label)s?",
    re.I,
)
"""Headings of phrases.txt, with a tab between the columns."""
QUOTED = r'"(?:[^"]|"")*"'
SAMPLE_SIZE = 8
"""Number of masks that are read to recognise the layout."""


def recognise(raw: epath.Path) -> LayoutCheck:
    """Checks for this layout; masks that are not black-and-white belong to `class_maps`."""
    files = [list(pair.annotations) for pair in find_pairs(raw, LABEL_SUFFIXES, Problems()).pairs]
    paths = [path for group in files for path in group]
    count = sum(map(bool, files))
    if not paths:
        return LayoutCheck()
    if any(_misfit([path])[0] == 0 for path in paths[:: max(1, len(paths) // SAMPLE_SIZE)]):
        return LayoutCheck(f"{count:,} images with a black-and-white mask")
    return LayoutCheck(f"{count:,} images with a mask, and {PHRASES}" if is_file(raw / PHRASES) else "")


def _misfit(paths: list[epath.Path]) -> tuple[float, ...]:
    """Share of masks that cannot be read or are not black and white, and share of masks with one value."""
    values = []
    for path in paths:
        try:
            values.append(values_of(path))
        except ValueError:
            values.append(None)
    unfit = sum(pair is None for pair in values)
    return unfit / len(values), sum(pair is not None and len(pair) == 1 for pair in values) / len(values)


def read(raw: epath.Path) -> Plan:
    """Images with a mask and a phrase; a black mask means that the phrase refers to nothing in the image.

    Raises:
        UserError: phrases.txt is missing or invalid; masks have more than two values; all are empty or full.
    """
    problems = Problems()
    return read_tree(raw, find_pairs(raw, LABEL_SUFFIXES, problems), problems)


def read_tree(raw: epath.Path, tree: Tree, problems: Problems) -> Plan:
    """Like `read`, for images that are paired with their masks. Raises UserError."""
    names = _names(tree.pairs)
    phrases = _read_phrases(raw / PHRASES, names)
    missing = [name for name in phrases if name and name not in names]
    if missing:
        count = sum(len(phrases[name]) for name in missing)
        problems.add(f"{raw / PHRASES}: {count:,} lines have the name of no image, such as {missing[0]}")
    for path in tree.unpaired:
        problems.add(f"{path} is a mask without an image")
    files = choose_versions(
        [pair.annotations for pair in tree.pairs], raw, _misfit, "black and white", problems
    )
    threshold = threshold_of([path for paths in files for path in paths], f"--raw={raw}")
    ids, planned = itertools.count(), []
    for pair, paths in zip(tree.pairs, files, strict=True):
        named = [(text, path) for path in paths for text in _phrases_of(path, pair, phrases)]
        if not named:
            problems.add(f"{pair.image} has no {f'phrase in {PHRASES}' if paths else 'mask'}")
            continue
        image = plan_masks(pair, named, captions_of(pair.image, problems), ids, threshold, problems)
        if image is not None:
            planned.append((pair, image))
    targets = [target for _, image in planned for target in image.targets]
    need_both(len(targets), not any(target.ann_ids for target in targets), _all_full(planned), f"--raw={raw}")
    splits = group_by_split(raw, planned, problems)
    return Plan(splits, problems, tuple(phrases.get("", ())[:1]))


def _all_full(planned: list[tuple[Pair, PlannedImage]]) -> bool:
    return all(
        target.segmentations and masks.decode(target.segmentations[0], image.size or (0, 0)).all()
        for _, image in planned
        for target in image.targets
    )


def _phrases_of(path: epath.Path, pair: Pair, phrases: dict[str, list[str]]) -> list[str]:
    """The phrases of a mask itself, or else of its image, or else of all images."""
    names = (path.stem, pair.key, pair.image.stem, "")
    return next((phrases[name] for name in names if name in phrases), [])


def _names(pairs: Sequence[Pair]) -> set[str]:
    """Names of images and masks, with which a line of phrases.txt may begin."""
    masks_of = {path.stem for pair in pairs for path in pair.annotations}
    return masks_of | {name for pair in pairs for name in (pair.key, pair.image.stem)}


def _read_phrases(path: epath.Path, names: set[str]) -> dict[str, list[str]]:
    """Phrases by the name of an image or mask; the key "" is for all images."""
    if not is_file(path):
        raise UserError(
            f"{path} is missing: write the phrase of the masks, such as 'the leaf', or a line for each "
            "image: its name, a tab or a comma, its phrase"
        )
    try:
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not text in UTF-8 ({error})") from error
    if lines and _split(lines[0])[0] not in names and HEADING.fullmatch("\t".join(_split(lines[0]))):
        del lines[0]
    if len(lines) == 1 and not re.search(r"\t", lines[0]) and _split(lines[0])[0] not in names:
        return {"": [_unquoted(lines[0])]}
    pairs = [_split(line) for line in lines]
    incomplete = next((line for line, (_, text) in zip(lines, pairs, strict=True) if not text), None)
    if incomplete is not None or not lines:
        message = f"{path}: {incomplete!r} has no phrase" if lines else f"{path} is empty"
        raise UserError(f"{message}; each line is the name of an image, a tab or a comma, and its phrase")
    phrases: dict[str, list[str]] = {}
    for name, text in dict.fromkeys(pairs):
        phrases.setdefault(name, []).append(text)
    return phrases


def _split(line: str) -> tuple[str, str]:
    """(name, phrase) of a line of phrases.txt."""
    match = re.fullmatch(
        rf"({QUOTED}|[^\t]*)\s*\t(.*)" if "\t" in line else rf"({QUOTED}|[^,]*)\s*,(.*)", line
    )
    name, text = map(_unquoted, match.groups()[:2]) if match else (_unquoted(line), "")
    stem = name[: name.rfind(".")] if name.lower().endswith(SUFFIXES) else name
    return stem, text


def _unquoted(cell: str) -> str:
    """A cell without the quotes of CSV."""
    cell = cell.strip()
    return cell[1:-1].replace('""', '"').strip() if re.fullmatch(QUOTED, cell) else cell
