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
from genmask_jax.data.raw_formats.class_list import MAX_LISTED, ClassList, shown_colour
from genmask_jax.data.raw_formats.label_files import (
    MAX_COLOURS,
    NO_CLASS,
    nearest,
    palette_of,
    read_colours,
    read_numbers,
)
from genmask_jax.data.raw_formats.names import is_class, is_ignored, phrase
from genmask_jax.data.raw_formats.palettes import CITYSCAPES_VOID, standard_tables, voc_colour
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import UserError

VOID_NUMBERS = {-1, 255, 65535}
"""Numbers of ignored pixels, unless they have a name."""
BLACK, WHITE = 0x000000, 0xFFFFFF
SAMPLE_SIZE = 16
"""Number of masks in the sample."""
MIN_PALETTE_COLOURS = 3
"""Smallest number of a standard palette's colours in the sample."""
MIN_COLOUR_SHARE = 0.005
"""Colours with a smaller share of a mask's pixels may come from blurred edges."""
MIN_LOSSY_SHARE = 0.8
"""Share of pixels that a standard palette must explain in lossy masks."""
MIN_LOSSLESS_SHARE = 0.99
"""The same in lossless masks, which may have a few stray pixels."""
MAX_SHARP_VALUES = 8
"""With more values than this between 0 and 255, the values come from blurred edges."""
SOLID_SIDE = 3
NORMAL_UNEXPLAINED = 0.05
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
    numbers: numbers that occur; `NO_CLASS` for colours without a class.
    unexplained: share of pixels whose colour has no class.
    unknown_colours: some of these colours.
    lossy: whether the format changes colours.
    edge_numbers: numbers of a lossy mask without a square of SOLID_SIDE pixels: they occur only at edges.
    """

    size: Size
    numbers: tuple[int, ...]
    unexplained: float = 0.0
    unknown_colours: tuple[int, ...] = ()
    lossy: bool = False
    edge_numbers: tuple[int, ...] = ()


ColourCounts = tuple[np.ndarray, np.ndarray, bool]
"""Colours [N], how often each occurs [N], and whether they are lossy."""


def scan(path: epath.Path, colours: tuple[int, ...]) -> Scan:
    """The content of a mask, by `colours` if given. Raises ValueError if it cannot be read."""
    if not colours:
        numbers = read_numbers(path)
        return Scan(_size(numbers), tuple(np.unique(numbers).tolist()))
    pixels, lossy = read_colours(path)
    unique, counts = np.unique(pixels, return_counts=True)
    lossy = lossy or len(unique) > MAX_COLOURS
    indices = nearest(unique, colours, lossy)
    unknown = indices == NO_CLASS
    shown = unique[unknown][np.argsort(-counts[unknown])][:MAX_LISTED]
    share = float(counts[unknown].sum() / counts.sum())
    numbers = tuple(np.unique(indices).tolist())
    edge_numbers: tuple[int, ...] = ()
    if lossy:
        label_map = indices[np.searchsorted(unique, pixels)]
        edge_numbers = tuple(number for number in numbers if not _is_solid(label_map == number))
    return Scan(_size(pixels), numbers, share, tuple(shown.tolist()), lossy, edge_numbers)


def _is_solid(mask: np.ndarray) -> bool:
    """Whether a mask [H, W] has a square of SOLID_SIDE pixels."""
    return bool(cv2.erode(mask.astype(np.uint8), np.ones((SOLID_SIDE, SOLID_SIDE), np.uint8)).any())


def _size(pixels: np.ndarray) -> Size:
    return int(pixels.shape[0]), int(pixels.shape[1])


def find_encoding(
    classes: ClassList | None, paths: Sequence[epath.Path]
) -> tuple[MaskEncoding | None, float]:
    """How masks are read, and the share of a sample's pixels that this explains; None if it is not known.

    Numbers are those of the list; `adapt_to_values` handles black and white.

    Raises:
        UserError: palettes differ between files, and no table has names for their colours.
    """
    sample = paths[:: max(1, len(paths) // SAMPLE_SIZE)][:SAMPLE_SIZE]
    pictures = [picture for path in sample if (picture := _count_colours(path)) is not None]
    names = classes.names if classes else {}
    by_number = _mean(_explained_by_number(path, names) for path in sample) if names else 0.0
    if classes and classes.colours:
        share = _mean(_explained_share(picture, classes.colours) for picture in pictures)
        if share >= by_number or not names:
            return _colour_encoding(classes.colours, classes.source), share
    elif by_number == 0.0 and (fits := _fitting_tables(_candidate_tables(classes, pictures), pictures)):
        return _best_fit(fits)
    if classes is None or not names:
        return None, by_number
    palettes = {path: palette for path in sample if (palette := palette_of(path))}
    by_palette = _encoding_of_palettes(classes, palettes, pictures)
    return by_palette or (MaskEncoding(names, (), classes.source), by_number)


def _encoding_of_palettes(
    classes: ClassList, palettes: dict[epath.Path, dict[int, int]], pictures: list[ColourCounts]
) -> tuple[MaskEncoding, float] | None:
    """How masks with palettes are read by colour; None if the palettes' indices are the list's numbers.

    Raises:
        UserError: palettes differ, and no table has names for their colours.
    """
    if not palettes:
        return None
    used = {(index, colour) for palette in palettes.values() for index, colour in palette.items()}
    used = {(index, colour) for index, colour in used if index in classes.names or index not in VOID_NUMBERS}
    clash = len({index for index, _ in used}) < len(used)
    tables = _candidate_tables(classes, pictures)
    if classes.colours:
        tables = {classes.source: classes.colours, **tables}
    if not clash:
        tables.pop(f"{classes.source}, in black and white", None)
    fits = _fitting_tables(tables, pictures, MIN_LOSSY_SHARE if clash else MIN_LOSSLESS_SHARE)
    if clash and not fits:
        _raise_clash(classes, palettes)
    agrees = any(
        all(_is_same_class(classes.names.get(index), table.get(colour)) for index, colour in used)
        for _, table in fits.values()
    )
    return _best_fit(fits) if fits and (clash or not agrees) else None


def _is_same_class(one: str | None, other: str | None) -> bool:
    """Whether two names, or None, are the same class or both ignored."""
    a, b = (None if name is None or is_ignored(name) else phrase(name) for name in (one, other))
    return a == b


def _raise_clash(classes: ClassList, palettes: dict[epath.Path, dict[int, int]]) -> None:
    """Raises UserError with two files whose palettes have different colours for an index."""
    first: dict[int, tuple[int, epath.Path]] = {}
    for path, palette in palettes.items():
        for index, colour in palette.items():
            first_colour, first_path = first.setdefault(index, (colour, path))
            if first_colour != colour and (index in classes.names or index not in VOID_NUMBERS):
                raise UserError(
                    f"{first_path} and {path} have different palettes ({index} is "
                    f"{shown_colour(first_colour)} in the first, {shown_colour(colour)} in the second), so "
                    f"the numbers of {classes.source} are ambiguous; write label_colors.txt with a line such "
                    "as `128 64 128 road` for each colour"
                )


def _fitting_tables(
    tables: dict[str, dict[int, str]], pictures: list[ColourCounts], min_share: float = MIN_LOSSLESS_SHARE
) -> dict[str, tuple[float, dict[int, str]]]:
    """The tables that explain every picture, each with the mean share of explained pixels, by source.

    Args:
        tables: names by colour, by source.
        pictures: the masks of the sample.
        min_share: share of a lossless picture's pixels that a table must explain.
    """
    fits = {}
    for source, table in tables.items():
        shares = [_explained_share(picture, table) for picture in pictures]
        required_shares = [MIN_LOSSY_SHARE if lossy else min_share for _, _, lossy in pictures]
        if pictures and all(
            share >= required for share, required in zip(shares, required_shares, strict=True)
        ):
            fits[source] = _mean(shares), table
    return fits


def _best_fit(fits: dict[str, tuple[float, dict[int, str]]]) -> tuple[MaskEncoding, float]:
    source = max(fits, key=lambda name: fits[name][0])
    share, table = fits[source]
    return _colour_encoding(table, source), share


def _colour_encoding(table: dict[int, str], source: str) -> MaskEncoding:
    return MaskEncoding(dict(enumerate(table.values())), tuple(table), source)


def _count_colours(path: epath.Path) -> ColourCounts | None:
    try:
        pixels, lossy = read_colours(path)
    except ValueError:
        return None
    colours, counts = np.unique(pixels, return_counts=True)
    return colours, counts, lossy or len(colours) > MAX_COLOURS


def _explained_share(picture: ColourCounts, table: dict[int, str]) -> float:
    colours, counts, lossy = picture
    return float(counts[nearest(colours, tuple(table), lossy) != NO_CLASS].sum() / counts.sum())


def _explained_by_number(path: epath.Path, names: dict[int, str]) -> float:
    try:
        return float(np.isin(read_numbers(path), [*names, *VOID_NUMBERS]).mean())
    except ValueError:
        return 0.0


def _mean(shares: Iterable[float]) -> float:
    values = list(shares)
    return sum(values) / len(values) if values else 0.0


def _candidate_tables(classes: ClassList | None, pictures: list[ColourCounts]) -> dict[str, dict[int, str]]:
    """Standard palettes that may be used, as names by colour, by the name of the palette."""
    common = {
        colour
        for colours, counts, _ in pictures
        for colour in colours[counts >= MIN_COLOUR_SHARE * counts.sum()].tolist()
    }
    names = [name for name in classes.names.values() if is_class(name)] if classes else []
    tables = {}
    for name, standard in standard_tables().items():
        table = dict(
            zip((c for _, c in standard), names if len(names) == len(standard) else (), strict=False)
        )
        if not table and {phrase(n) for n in names} >= {
            n for n, c in standard if c in common and is_class(n)
        }:
            table = {colour: n for n, colour in standard}
        if table or not names:
            void_colours = CITYSCAPES_VOID if name == "Cityscapes" else (BLACK,)
            table = table or {colour: n for n, colour in standard}
            if (
                len(set(nearest(np.array(sorted(common), int), tuple(table), True).tolist()) - {NO_CLASS})
                >= MIN_PALETTE_COLOURS
            ):
                tables[f"{name}'s colours"] = {**dict.fromkeys(void_colours, "void"), **table}
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


def adapt_to_values(encoding: MaskEncoding, values: set[int], counted: bool) -> MaskEncoding:
    """Adapts the encoding to masks of 0 and 255: 255 is the second of two names, or the only name.

    Args:
        encoding: the encoding by the list's numbers.
        values: all numbers in the dataset's masks.
        counted: whether the list has names without numbers.
    """
    names = encoding.names
    between = values - {0, 255}
    white = 255 in values and (not between or (1 not in between and len(between) > MAX_SHARP_VALUES))
    if encoding.colours or any(map(is_ignored, names.values())):
        return encoding
    if set(names) == {0, 1} and white:
        return dataclasses.replace(encoding, names={0: names[0], 255: names[1]})
    if set(names) == {0} and counted and is_class(names[0]) and (white or values == {0, 1}):
        return dataclasses.replace(encoding, names={0: "background", max(values): names[0]})
    return encoding


def need_same_white(encoding: MaskEncoding, scans: dict[epath.Path, Scan]) -> None:
    """Raises UserError if some masks have 1 and others 255 for the second of two names.

    If a mask has both, 255 is void.
    """
    if encoding.colours or set(encoding.names) not in ({0}, {0, 1}):
        return
    numbers = {path: set(scanned.numbers) for path, scanned in scans.items()}
    if all(present <= {0, 1, 255} and not present >= {1, 255} for present in numbers.values()):
        with_1, with_255 = (
            next((path for path, present in numbers.items() if n in present), None) for n in (1, 255)
        )
        if with_1 is not None and with_255 is not None:
            raise UserError(
                f"{with_1} has the value 1, {with_255} has 255 and no 1: save all masks with the same two "
                f"values, or add a name for 255 to {encoding.source}"
            )


def report_unexplained(encoding: MaskEncoding, scans: Sequence[Scan], problems: Problems) -> None:
    """Reports numbers and colours without a class once; their pixels are ignored."""
    if not encoding.colours:
        known = {*encoding.names, *VOID_NUMBERS}
        unknown = sorted({number for one in scans for number in one.numbers if number not in known})
        count = sum(not known.issuperset(one.numbers) for one in scans)
        if unknown:
            listed = _join([str(number) for number in unknown])
            template = "the number {} has" if len(unknown) == 1 else "the numbers {} have"
            problems.add(
                f"{template.format(listed)} no name in {encoding.source}; these pixels, in {count:,} masks, "
                "are ignored"
            )
        return
    colours = list(dict.fromkeys(c for one in scans if not one.lossy for c in one.unknown_colours))
    count = sum(bool(one.unknown_colours) and not one.lossy for one in scans)
    if colours:
        template = "the colour {} has" if len(colours) == 1 else "the colours {} have"
        listed = _join([shown_colour(colour) for colour in colours])
        problems.add(
            f"{template.format(listed)} no name in {encoding.source}; these pixels, in {count:,} masks, "
            "are ignored"
        )
    unexplained = [one.unexplained for one in scans if one.lossy]
    if unexplained:
        report = problems.add if np.mean(unexplained) > NORMAL_UNEXPLAINED else problems.note
        report(
            f"{len(unexplained):,} masks have colours that are not in {encoding.source}, as in JPEG files: "
            f"each pixel gets the nearest colour, and the {np.mean(unexplained):.1%} far from all colours "
            "are ignored"
        )


def _join(items: list[str]) -> str:
    more = f", ... ({len(items)} in all)" if len(items) > MAX_LISTED else ""
    return f"{', '.join(items[:MAX_LISTED])}{more}"
