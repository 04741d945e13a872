"""Maps the numbers or colours of a dataset's masks to classes.

All masks of a dataset are read in the same way, the one that explains most pixels of a sample: by the numbers
of the class list, by its colours, or by the standard colours of VOC (for listed names), Cityscapes or ADE20K.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from etils import epath

from genmask_jax.data.masks import Size
from genmask_jax.data.raw_formats.class_list import SAID, ClassList, shown_colour
from genmask_jax.data.raw_formats.label_files import (
    MANY,
    NOTHING,
    nearest,
    palette_of,
    read_colours,
    read_numbers,
)
from genmask_jax.data.raw_formats.names import is_asked, is_ignored, phrase
from genmask_jax.data.raw_formats.palettes import CITYSCAPES_VOID, standard_tables, voc_colour
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import UserError

VOID = {-1, 255, 65535}
"""Numbers of ignored pixels, unless they have a name."""
BLACK, WHITE = 0x000000, 0xFFFFFF
LOOKED_AT = 16
"""Number of masks in the sample."""
FEW = 3
"""Least number of a standard palette's colours in the sample."""
RARE = 0.005
"""Colours with a smaller share of a mask's pixels may come from blurred edges."""
MOST = 0.8
"""Share of pixels that a standard palette must explain in lossy masks."""
NEARLY = 0.99
"""The same in lossless masks, which may have a few stray pixels."""
SOFT = 8
"""With more values than this between 0 and 255, the values come from blurred edges."""
SOLID = 3
SMALL = 0.05
"""Normal share of pixels without a class in lossy masks, at edges."""


@dataclasses.dataclass(frozen=True)
class MaskEncoding:
    """How masks are read.

    names: names of classes, by number.
    colours: colours (0xRRGGBB) whose indices are the numbers; () if masks have numbers.
    source: the list or palette with the names.
    """

    names: dict[int, str]
    colours: tuple[int, ...]
    source: str


@dataclasses.dataclass(frozen=True)
class Scan:
    """The content of a mask.

    size: (height, width).
    numbers: numbers that occur; `NOTHING` for colours without a class.
    unexplained: share of pixels whose colour has no class.
    odd: some of these colours.
    lossy: whether the format changes colours.
    stray: numbers of a lossy mask without a square of SOLID pixels: they occur only at edges.
    """

    size: Size
    numbers: tuple[int, ...]
    unexplained: float = 0.0
    odd: tuple[int, ...] = ()
    lossy: bool = False
    stray: tuple[int, ...] = ()


Picture = tuple[np.ndarray, np.ndarray, bool]
"""Colours [N], how often each occurs [N], and whether they are lossy."""


def scan(path: epath.Path, colours: tuple[int, ...]) -> Scan:
    """The content of a mask, by `colours` if given. Raises ValueError if it cannot be read."""
    if not colours:
        numbers = read_numbers(path)
        return Scan(_size(numbers), tuple(np.unique(numbers).tolist()))
    pixels, lossy = read_colours(path)
    found, counts = np.unique(pixels, return_counts=True)
    lossy = lossy or len(found) > MANY
    places = nearest(found, colours, lossy)
    odd = places == NOTHING
    some = found[odd][np.argsort(-counts[odd])][:SAID]
    share = float(counts[odd].sum() / counts.sum())
    numbers = tuple(np.unique(places).tolist())
    stray: tuple[int, ...] = ()
    if lossy:
        label_map = places[np.searchsorted(found, pixels)]
        stray = tuple(number for number in numbers if not _is_solid(label_map == number))
    return Scan(_size(pixels), numbers, share, tuple(some.tolist()), lossy, stray)


def _is_solid(mask: np.ndarray) -> bool:
    """Whether a mask [H, W] has a square of SOLID pixels."""
    return bool(cv2.erode(mask.astype(np.uint8), np.ones((SOLID, SOLID), np.uint8)).any())


def _size(pixels: np.ndarray) -> Size:
    return int(pixels.shape[0]), int(pixels.shape[1])


def meaning_of(classes: ClassList | None, paths: Sequence[epath.Path]) -> tuple[MaskEncoding | None, float]:
    """How masks are read, and the share of a sample's pixels that this explains; None if it is not known.

    Numbers are those of the list; `by_values` handles black and white.

    Raises:
        UserError: palettes differ between files, and no table has names for their colours.
    """
    sample = paths[:: max(1, len(paths) // LOOKED_AT)][:LOOKED_AT]
    pictures = [picture for path in sample if (picture := _picture(path)) is not None]
    names = classes.names if classes else {}
    by_number = _mean(_explained_numbers(path, names) for path in sample) if names else 0.0
    if classes and classes.colours:
        share = _mean(_explained(picture, classes.colours) for picture in pictures)
        if share >= by_number or not names:
            return _by_colour(classes.colours, classes.source), share
    elif by_number == 0.0 and (fits := _fitting(_standard(classes, pictures), pictures)):
        return _best(fits)
    if classes is None or not names:
        return None, by_number
    palettes = {path: palette for path in sample if (palette := palette_of(path))}
    by_palette = _of_palettes(classes, palettes, pictures)
    return by_palette or (MaskEncoding(names, (), classes.source), by_number)


def _of_palettes(
    classes: ClassList, palettes: dict[epath.Path, dict[int, int]], pictures: list[Picture]
) -> tuple[MaskEncoding, float] | None:
    """How masks with palettes are read by colour; None if the palettes' indices are the list's numbers.

    Raises:
        UserError: palettes differ, and no table has names for their colours.
    """
    if not palettes:
        return None
    used = {(index, colour) for palette in palettes.values() for index, colour in palette.items()}
    used = {(index, colour) for index, colour in used if index in classes.names or index not in VOID}
    clash = len({index for index, _ in used}) < len(used)
    tables = _standard(classes, pictures)
    if classes.colours:
        tables = {classes.source: classes.colours, **tables}
    if not clash:
        tables.pop(f"{classes.source}, in black and white", None)
    fits = _fitting(tables, pictures, MOST if clash else NEARLY)
    if clash and not fits:
        _name_clash(classes, palettes)
    as_listed = any(
        all(_same(classes.names.get(index), table.get(colour)) for index, colour in used)
        for _, table in fits.values()
    )
    return _best(fits) if fits and (clash or not as_listed) else None


def _same(one: str | None, other: str | None) -> bool:
    """Whether two names, or None, are the same class or both ignored."""
    a, b = (None if name is None or is_ignored(name) else phrase(name) for name in (one, other))
    return a == b


def _name_clash(classes: ClassList, palettes: dict[epath.Path, dict[int, int]]) -> None:
    """Raises UserError with two files whose palettes have different colours for an index."""
    first: dict[int, tuple[int, epath.Path]] = {}
    for path, palette in palettes.items():
        for index, colour in palette.items():
            its, other = first.setdefault(index, (colour, path))
            if its != colour and (index in classes.names or index not in VOID):
                raise UserError(
                    f"{other} and {path} have different palettes ({index} is {shown_colour(its)} in the "
                    f"first, {shown_colour(colour)} in the second), so the numbers of {classes.source} are "
                    "ambiguous; write label_colors.txt with a line such as `128 64 128 road` for each colour"
                )


def _fitting(
    tables: dict[str, dict[int, str]], pictures: list[Picture], least: float = NEARLY
) -> dict[str, tuple[float, dict[int, str]]]:
    """The tables that explain every picture, each with the mean share of explained pixels, by source.

    Args:
        tables: names by colour, by source.
        pictures: the masks of the sample.
        least: share of a lossless picture's pixels that a table must explain.
    """
    fits = {}
    for source, table in tables.items():
        shares = [_explained(picture, table) for picture in pictures]
        needed = [MOST if lossy else least for _, _, lossy in pictures]
        if pictures and all(share >= need for share, need in zip(shares, needed, strict=True)):
            fits[source] = _mean(shares), table
    return fits


def _best(fits: dict[str, tuple[float, dict[int, str]]]) -> tuple[MaskEncoding, float]:
    source = max(fits, key=lambda name: fits[name][0])
    share, table = fits[source]
    return _by_colour(table, source), share


def _by_colour(table: dict[int, str], source: str) -> MaskEncoding:
    return MaskEncoding(dict(enumerate(table.values())), tuple(table), source)


def _picture(path: epath.Path) -> Picture | None:
    try:
        pixels, lossy = read_colours(path)
    except ValueError:
        return None
    found, counts = np.unique(pixels, return_counts=True)
    return found, counts, lossy or len(found) > MANY


def _explained(picture: Picture, table: dict[int, str]) -> float:
    found, counts, lossy = picture
    return float(counts[nearest(found, tuple(table), lossy) != NOTHING].sum() / counts.sum())


def _explained_numbers(path: epath.Path, names: dict[int, str]) -> float:
    try:
        return float(np.isin(read_numbers(path), [*names, *VOID]).mean())
    except ValueError:
        return 0.0


def _mean(shares: Iterable[float]) -> float:
    found = list(shares)
    return sum(found) / len(found) if found else 0.0


def _standard(classes: ClassList | None, pictures: list[Picture]) -> dict[str, dict[int, str]]:
    """Standard palettes that may be used, as names by colour, by the name of the palette."""
    found = {
        colour
        for colours, counts, _ in pictures
        for colour in colours[counts >= RARE * counts.sum()].tolist()
    }
    asked = [name for name in classes.names.values() if is_asked(name)] if classes else []
    tables = {}
    for name, standard in standard_tables().items():
        its = dict(zip((c for _, c in standard), asked if len(asked) == len(standard) else (), strict=False))
        if not its and {phrase(n) for n in asked} >= {n for n, c in standard if c in found and is_asked(n)}:
            its = {colour: n for n, colour in standard}
        if its or not asked:
            void = CITYSCAPES_VOID if name == "Cityscapes" else (BLACK,)
            its = its or {colour: n for n, colour in standard}
            if len(set(nearest(np.array(sorted(found), int), tuple(its), True).tolist()) - {NOTHING}) >= FEW:
                tables[f"{name}'s colours"] = {**dict.fromkeys(void, "void"), **its}
    if classes and classes.names:
        of_voc = {voc_colour(n): text for n, text in classes.names.items() if 0 <= n < 255}
        tables[f"{classes.source}, in VOC's colours"] = {**of_voc, voc_colour(255): "void"}
        if len(classes.names) == 2:
            tables[f"{classes.source}, in black and white"] = dict(
                zip((BLACK, WHITE), _in_order(classes.names), strict=True)
            )
    return tables


def _in_order(names: dict[int, str]) -> list[str]:
    return [names[number] for number in sorted(names)]


def by_values(meaning: MaskEncoding, values: set[int], counted: bool) -> MaskEncoding:
    """Adapts the meaning to masks of 0 and 255: 255 is the second of two names, or the only name.

    Args:
        meaning: the meaning by the list's numbers.
        values: all numbers in the dataset's masks.
        counted: whether the list has names without numbers.
    """
    names = meaning.names
    between = values - {0, 255}
    white = 255 in values and (not between or (1 not in between and len(between) > SOFT))
    if meaning.colours or any(map(is_ignored, names.values())):
        return meaning
    if set(names) == {0, 1} and white:
        return dataclasses.replace(meaning, names={0: names[0], 255: names[1]})
    if set(names) == {0} and counted and is_asked(names[0]) and (white or values == {0, 1}):
        return dataclasses.replace(meaning, names={0: "background", max(values): names[0]})
    return meaning


def need_one_white(meaning: MaskEncoding, scans: dict[epath.Path, Scan]) -> None:
    """Raises UserError if some masks have 1 and others 255 for the second of two names.

    If a mask has both, 255 is void.
    """
    if meaning.colours or set(meaning.names) not in ({0}, {0, 1}):
        return
    values = {path: set(one.numbers) for path, one in scans.items()}
    if all(its <= {0, 1, 255} and not its >= {1, 255} for its in values.values()):
        one, white = (next((path for path, its in values.items() if n in its), None) for n in (1, 255))
        if one is not None and white is not None:
            raise UserError(
                f"{one} has the value 1, {white} has 255 and no 1: save all masks with the same two values, "
                f"or add a name for 255 to {meaning.source}"
            )


def report_unexplained(meaning: MaskEncoding, scans: Sequence[Scan], problems: Problems) -> None:
    """Reports numbers and colours without a class once; their pixels are ignored."""
    if not meaning.colours:
        known = {*meaning.names, *VOID}
        odd = sorted({number for one in scans for number in one.numbers if number not in known})
        count = sum(not known.issuperset(one.numbers) for one in scans)
        if odd:
            said = _some([str(number) for number in odd])
            what = "the number {} has" if len(odd) == 1 else "the numbers {} have"
            problems.add(
                f"{what.format(said)} no name in {meaning.source}; these pixels, in {count:,} masks, are "
                "ignored"
            )
        return
    colours = list(dict.fromkeys(c for one in scans if not one.lossy for c in one.odd))
    count = sum(bool(one.odd) and not one.lossy for one in scans)
    if colours:
        what = "the colour {} has" if len(colours) == 1 else "the colours {} have"
        said = _some([shown_colour(colour) for colour in colours])
        problems.add(
            f"{what.format(said)} no name in {meaning.source}; these pixels, in {count:,} masks, are ignored"
        )
    soft = [one.unexplained for one in scans if one.lossy]
    if soft:
        report = problems.add if np.mean(soft) > SMALL else problems.note
        report(
            f"{len(soft):,} masks have colours that are not in {meaning.source}, as in JPEG files: each "
            f"pixel gets the nearest colour, and the {np.mean(soft):.1%} far from all colours are ignored"
        )


def _some(items: list[str]) -> str:
    more = f", ... ({len(items)} in all)" if len(items) > SAID else ""
    return f"{', '.join(items[:SAID])}{more}"
