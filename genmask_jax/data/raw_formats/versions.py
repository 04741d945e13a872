"""Several annotation files of one image: parts, versions, and files that are not annotations.

Files of one image that differ only in a number (X_mask.png, X_mask_1.png) are parts of its annotation. Others
are versions of it: X_gtFine_labelIds.png and X_gtFine_labelTrainIds.png, or files in two folders. The version
that fits best is read for the whole dataset; images without it have no annotation.
"""

import collections
import re
from collections.abc import Callable, Sequence

from etils import epath

from genmask_jax.data.raw_formats.folder_names import (
    among_annotations,
    among_images,
    folder_role,
    parts_below,
)
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import UserError

INSTANCE_FOLDER = re.compile(
    r"segmentation_?objects?(_?(png|npy|visuali[sz]ation))?|instances?_?(ids?|maps?)|annotations?_instances?",
    re.I,
)
INSTANCE_ENDING = re.compile(r"_(instance_?(Train)?_?Ids?|instances?)$", re.I)
PREVIEW_FOLDER = re.compile(
    r"(.*[a-z])?_?(visuali[sz]ations?|overlays?)|.+_viz|(masks?|labels?|ann.*)_vis", re.I
)
PREVIEW_ENDING = re.compile(
    r"[_-](visuali[sz]ation|overlay|viz|(masks?|labels?|seg|segmentation|gt)[_-]vis)$", re.I
)
VIS_ENDING = re.compile(r"[_-]vis$", re.I)
"""Ending of a picture of annotations, if there is a file of the same name without it."""
PREDICTION_FOLDER = re.compile(r"(.*[a-z]_)?pred(iction)?s?(_?(masks?|labels?))?", re.I)
NUMBERED = re.compile(r"([_-](?:masks?|labels?|seg|segmentation|gt))(?:[_-]?\d+| ?\(\d+\))$", re.I)
CITYSCAPES = re.compile(r"_gt(Fine|Coarse)_(labelIds|labelTrainIds|color)$", re.I)
COLOURED = re.compile(r"([_-](?:masks?|labels?|seg|segmentation|gt))[_-](colou?rs?|rgb)$", re.I)
COLOUR_ENDING = re.compile(r"[_-](colou?rs?|rgb)$", re.I)
SAMPLE_SIZE = 32
"""Number of files of a version that are read to choose one."""
MAX_MISFIT = 0.5
"""Largest misfit of a version that fits."""


def skip_reason(parts: tuple[str, ...], stem: str, stems: set[tuple[str, ...]]) -> tuple[str, str] | None:
    """(pattern, reason) of a file that is neither an image nor an annotation; None for other files.

    Args:
        parts: names of its folders and its own name.
        stem: its stem.
        stems: folders and stems of all files of the tree.
    """
    for ending, folder, reason in (
        (INSTANCE_ENDING, INSTANCE_FOLDER, "they have numbers of objects, not of classes"),
        (PREVIEW_ENDING, PREVIEW_FOLDER, "they are pictures of annotations"),
    ):
        for part in parts[:-1]:
            if folder.fullmatch(part):
                return f"{part}/", reason
        if match := ending.search(stem):
            return f"*{match[0]}", reason
    for part in parts[:-1]:
        if PREDICTION_FOLDER.fullmatch(part):
            return f"{part}/", "they are predictions"
    match = VIS_ENDING.search(stem)
    if match and not among_images(parts) and (*parts[:-1], stem[: match.start()]) in stems:
        return f"*{match[0]}", "they are pictures of annotations"
    return None


def base_stem(stem: str) -> str:
    """The stem without the number or ending of a part or version: "X_mask" for "X_mask_1"."""
    return COLOURED.sub(r"\1", NUMBERED.sub(r"\1", CITYSCAPES.sub(r"_gtFine_labelIds", stem)))


def number_of(stem: str) -> int | None:
    """The number after the ending of a mask: 1 for "leaf_mask_1"; None if there is none."""
    match = NUMBERED.search(stem)
    return int(re.sub(r"[^0-9]", "", match[0])) if match else None


def version(path: epath.Path, raw: epath.Path) -> str:
    """The common pattern of the files of a version, such as "gtFine/*_labelIds.png"."""
    stem = path.stem
    folders = [part for part in parts_below(path, raw)[:-1] if folder_role(part).annotations]
    match = CITYSCAPES.search(stem) or COLOURED.search(stem) or NUMBERED.search(stem)
    if among_annotations(parts_below(path, raw)):
        match = match or COLOUR_ENDING.search(stem)
    ending_match = match or re.search(r"[_-](masks?|labels?|seg|segmentation|gt)$", stem, re.I)
    ending = "" if ending_match is None else NUMBERED.sub(r"\1", ending_match[0])
    return f"{'/'.join([*folders, ''])}*{ending}{path.suffix.lower()}"


def choose_versions(
    annotations: Sequence[Sequence[epath.Path]],
    raw: epath.Path,
    misfit: Callable[[list[epath.Path]], tuple[float, ...]],
    reference: str,
    problems: Problems,
) -> list[list[epath.Path]]:
    """Chooses the version that is read, and returns its files for each image.

    Args:
        annotations: all annotation files of each image.
        raw: the folder that contains them.
        misfit: of some files of a version, a tuple that is smaller for a better fit; the first number is in
            [0, 1].
        reference: what the version should fit, for messages.
        problems: receives notes about versions that are not read.

    Raises:
        UserError: several versions fit equally, or none fits.
    """
    by_version: dict[str, list[epath.Path]] = collections.defaultdict(list)
    candidates: set[str] = set()
    for paths in annotations:
        names = {version(path, raw) for path in paths}
        candidates |= names if len(names) > 1 else set()
        for path in paths:
            by_version[version(path, raw)].append(path)
    images = {name for name in candidates if not name.endswith(".npy")}
    scores = {  # on a tie, prefer the version without colours
        name: (*misfit(_sample(by_version[name])), float(bool(COLOUR_ENDING.search(name.rsplit(".", 1)[0]))))
        for name in sorted(images or candidates)
    }
    ranked = sorted(scores, key=lambda name: scores[name])
    if ranked and scores[ranked[0]][0] > MAX_MISFIT:
        raise UserError(
            f"{raw}: images have several annotations ({', '.join(ranked)}), and none of them fits "
            f"{reference}; keep one of them in the folder, and write a class list for it"
        )
    if len(ranked) > 1 and scores[ranked[0]] == scores[ranked[1]]:
        raise UserError(
            f"{raw}: images have several annotations, and {ranked[0]} fits {reference} as well as "
            f"{ranked[1]}; keep one of them in the folder"
        )
    order = {name: i for i, name in enumerate([*ranked, *sorted(candidates - set(ranked))])}
    files, skipped = [], collections.Counter()
    for paths in annotations:
        names = sorted({version(path, raw) for path in paths}, key=lambda name: order.get(name, -1))
        best = names[0] if names and names[0] not in ranked[1:] else ""
        files.append([path for path in paths if version(path, raw) == best])
        skipped.update(version(path, raw) for path in paths if version(path, raw) != best)
    for name, count in skipped.items():
        problems.note(f"{raw}: {count:,} files {name} are not read; {ranked[0]} fit {reference} better")
    return files


def _sample(paths: list[epath.Path]) -> list[epath.Path]:
    return paths[:: max(1, len(paths) // SAMPLE_SIZE)][:SAMPLE_SIZE]
