"""Images with a class for every pixel: files of class numbers or colours, and a class list.

    RAW/images/train/X.jpg, RAW/labels/train/X.png, RAW/classes.txt     (for other places see `pairs.py`)

A class refers to all of its pixels in the image. Pixels of 255, of a class such as "void" (`names.IGNORED`),
and of numbers and colours without a name are ignored. The names come from `class_list`, or are Cityscapes'
for its files.
"""

from etils import epath

from genmask_jax.data.raw_formats.cityscapes import numbering, renumber
from genmask_jax.data.raw_formats.class_list import ClassList, read_class_list, report_unused
from genmask_jax.data.raw_formats.label_files import LABEL_SUFFIXES, LabelFile
from genmask_jax.data.raw_formats.layout import captions_of
from genmask_jax.data.raw_formats.layout_check import LayoutCheck, count, folders, values
from genmask_jax.data.raw_formats.mask_values import (
    MaskEncoding,
    Scan,
    adapt_to_values,
    find_encoding,
    need_same_white,
    report_unexplained,
    scan,
)
from genmask_jax.data.raw_formats.names import is_background, is_class, is_ignored, phrase
from genmask_jax.data.raw_formats.pairs import Pair, Tree, find_pairs, group_by_split
from genmask_jax.data.raw_formats.plan import (
    NO_CLASS_NOTE,
    NO_CLASS_TARGETS,
    Expression,
    Plan,
    PlannedImage,
    Target,
)
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.data.raw_formats.versions import choose_versions
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import read_frame


def recognise(raw: epath.Path) -> LayoutCheck:
    """Checks for this layout."""
    tree = find_pairs(raw, LABEL_SUFFIXES, Problems())
    paired = [pair.annotation for pair in tree.pairs if pair.annotation is not None]
    classes = _classes(raw, tree) if paired else None
    if classes is not None:
        return LayoutCheck(f"{len(paired):,} images with a class for each pixel, {len(classes)} class names")
    if paired:
        encoding, _ = find_encoding(None, paired)
        if encoding is not None:
            return LayoutCheck(f"{len(paired):,} images with a class for each pixel, in {encoding.source}")
        return LayoutCheck(
            seen=f"{count(paired, 'PNG')}{folders(paired, raw)} with {values(paired)} and no class list",
            fix="write the names of the classes to classes.txt, one per line from number 0 on, or the "
            "names of colours to label_colors.txt, with a line such as `128 64 128 road` for each",
        )
    if tree.unpaired:
        return LayoutCheck(
            seen=f"{count(tree.unpaired, 'PNG')}{folders(tree.unpaired, raw)} without an image of that name, "
            f"such as {tree.unpaired[0].relative_to(raw)}",
            fix="give each image and its PNG the same name, images/X.jpg and masks/X.png",
        )
    try:
        classes = read_class_list(raw)
    except UserError:  # the file may not be a class list
        return LayoutCheck()
    if classes is not None:
        return LayoutCheck(
            seen=f"a class list of {len(classes)} names, but no PNG of class numbers",
            fix="save the class numbers of each images/X.jpg as labels/X.png",
        )
    return LayoutCheck()


def _classes(raw: epath.Path, tree: Tree) -> ClassList | None:
    """The folder's class list, with Cityscapes' numbers for files named like its. Raises UserError."""
    return renumber(read_class_list(raw), [path for pair in tree.pairs for path in pair.annotations])


def read(raw: epath.Path) -> Plan:
    """Images with their classes; the expression of a class is its name.

    Raises:
        UserError: the classes have no names, several annotations of an image fit, or the masks are constant.
    """
    problems = Problems()
    return read_tree(raw, find_pairs(raw, LABEL_SUFFIXES, problems), problems)


def read_tree(raw: epath.Path, tree: Tree, problems: Problems) -> Plan:
    """Like `read`, for images that are paired with their files of classes. Raises UserError."""
    classes = _classes(raw, tree)
    for path in tree.unpaired:
        problems.add(f"{path} has class numbers but no image")
    pairs = tree.pairs
    files = choose_versions(
        [pair.annotations for pair in pairs],
        raw,
        lambda paths: _misfit(classes, paths),
        classes.source if classes else "a standard palette",
        problems,
    )
    encoding, _ = find_encoding(classes, [path for paths in files for path in paths])
    if encoding is None:
        raise UserError(f"--raw={raw}: the class numbers have no names; write them to classes.txt")
    scans = {
        i: found for i, paths in enumerate(files) if (found := _scan(pairs[i], paths, encoding, problems))
    }
    seen = {number for one in scans.values() for number in one.numbers if number not in one.edge_numbers}
    _need_two_values(raw, list(scans.values()))
    need_same_white(encoding, {files[i][0]: one for i, one in scans.items()})
    encoding = adapt_to_values(encoding, seen, classes is not None and classes.counted)
    report_unexplained(encoding, list(scans.values()), problems)
    if classes is not None and not classes.standard:
        report_unused(encoding.names, seen, encoding.source, problems)
    planned = [(pairs[i], _plan(pairs[i], files[i][0], one, encoding, problems)) for i, one in scans.items()]
    if planned and not any(image is not None and image.expressions for _, image in planned):
        reason = (problems.left_out or ["all pixels are background"])[0]
        raise UserError(f"--raw={raw}: no mask shows a class of {encoding.source}; {reason}")
    splits = group_by_split(raw, [(pair, image) for pair, image in planned if image is not None], problems)
    names = [phrase(name) for name in encoding.names.values() if is_class(name)]
    return Plan(splits, problems, tuple(dict.fromkeys(names)))


def _misfit(classes: ClassList | None, paths: list[epath.Path]) -> tuple[float, ...]:
    """How badly the list fits: share of unexplained pixels, whether by colours, share of unused names."""
    if (
        classes
        and classes.numbering
        and any(numbering(path) not in ("", classes.numbering) for path in paths)
    ):
        return (1.0, 0.0, 0.0)
    try:
        encoding, share = find_encoding(classes, paths)
    except UserError:  # palettes differ
        encoding, share = None, 0.0
    if encoding is None:
        return (1.0, 0.0, 0.0)
    seen: set[int] = set()
    for path in paths:
        try:
            seen.update(scan(path, encoding.colours).numbers)
        except ValueError:
            return (1.0, 0.0, 0.0)
    unseen = sum(number not in seen for number in encoding.names)
    return (round(1 - share, 3), float(bool(encoding.colours)), unseen / len(encoding.names))


def _scan(pair: Pair, paths: list[epath.Path], encoding: MaskEncoding, problems: Problems) -> Scan | None:
    if not paths:
        problems.add(f"{pair.image} has no mask")
    elif len(paths) > 1:
        problems.add(f"{pair.image} is not read: it has several masks, {paths[0].name} and {paths[1].name}")
    else:
        try:
            return scan(paths[0], encoding.colours)
        except ValueError as error:
            problems.add(str(error))
    return None


def _need_two_values(raw: epath.Path, scans: list[Scan]) -> None:
    """Raises UserError if all pixels of all masks have the same value."""
    values = {one.numbers for one in scans}
    if len(values) == 1 and len(next(iter(values))) == 1:
        raise UserError(
            f"--raw={raw}: all {len(scans):,} masks have the value {next(iter(values))[0]} everywhere; "
            "there is nothing to learn"
        )


def _plan(
    pair: Pair, path: epath.Path, scanned: Scan, encoding: MaskEncoding, problems: Problems
) -> PlannedImage | None:
    try:
        turned = is_upright(pair.image, scanned.size)
    except ValueError as error:
        problems.add(str(error))
        return None
    names = encoding.names
    ignored = tuple(
        n for n in scanned.numbers if n not in names or is_ignored(names[n]) or n in scanned.edge_numbers
    )
    numbers_of: dict[str, list[int]] = {}
    for number in scanned.numbers:
        if number not in ignored and not is_background(names[number]):
            numbers_of.setdefault(phrase(names[number]), []).append(number)
    texts = sorted(numbers_of, key=lambda text: numbers_of[text])
    captions = captions_of(pair.image, problems)
    background = any(number in names and is_background(names[number]) for number in scanned.numbers)
    if not texts and background:
        problems.note(NO_CLASS_NOTE)
    elif not texts and not captions:
        problems.add(f"{path} has no pixel of a named class")
        return None
    return PlannedImage(
        path=str(pair.image),
        image_id=pair.key,
        size=scanned.size,
        captions=captions,
        turned=turned,
        targets=tuple(Target(i, numbers=tuple(numbers_of[text])) for i, text in enumerate(texts))
        or (NO_CLASS_TARGETS if background else ()),
        expressions=tuple(
            Expression(pair.key if i == 0 else f"{pair.key}#{i}", text, i) for i, text in enumerate(texts)
        ),
        labels=LabelFile(str(path), encoding.colours, ignored),
    )


def is_upright(image: epath.Path, size: tuple[int, ...]) -> bool:
    """Whether labels of that size refer to the image after its EXIF orientation is applied.

    Raises:
        ValueError: the size fits neither the stored nor the turned image, or fits both although the image has
            an orientation.
    """
    frame = read_frame(image)
    if frame is None:
        return True  # reported when the image is written
    fits = [
        turned
        for turned, frame_size in ((True, frame.upright), (False, frame.stored))
        if frame_size == tuple(size)
    ]
    if not fits:
        raise ValueError(
            f"{image} has {frame.upright[0]} x {frame.upright[1]} pixels, its labels {size[0]} x {size[1]}"
        )
    if frame.orientation != 1 and len(fits) == 2:
        raise ValueError(
            f"{image} has EXIF orientation {frame.orientation}, and its size does not tell whether its "
            "labels are for the stored or the turned image; save it without EXIF orientation"
        )
    return fits[0]
