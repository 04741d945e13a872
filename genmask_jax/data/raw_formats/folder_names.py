"""Recognises folders of images, of annotations and of splits by their names.

A folder's name is recognised if all of its words are, in any case and joined in any way: "Masks", "img_dir",
"train_labels", "trainannot", "SegmentationClassPNG", "ground truth", "train2017".
"""

import contextlib
import contextvars
import dataclasses
import functools
import os
import re
from collections.abc import Iterator

from etils import epath

from genmask_jax.data.raw_formats.layout import SPLITS
from genmask_jax.utils.paths import listed

IMAGE_WORDS = {
    *("image", "img", "pic", "picture", "photo", "photograph", "input", "jpegimage", "leftimg8bit")
}
ANNOTATION_WORDS = {
    *("label", "labelled", "labeled", "mask", "annotation", "annot", "anno", "ann", "gt", "gtfine"),
    *("groundtruth", "truth", "segmentation", "seg", "segm"),
}
OTHER_WORDS = {
    *(
        "approved",
        "aug",
        "binary",
        "class",
        "data",
        "dataset",
        "dir",
        "file",
        "fine",
        "folder",
        "full",
        "ground",
        "raw",
        "rgb",
    ),
    *("semantic", "set", "still", "jpeg", "jpg", "npy", "png", "tif", "tiff"),
}
"""Words without a meaning here that occur with others, such as "dir" in "img_dir".

All words are singular; plurals are recognised too."""
SPLIT_NAMES = {name: split for split, names in SPLITS.items() for name in names}
WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[^\W\d_A-Z]+|[A-Z]+|\d+")
ENDING = r"(mask|masks|label|labels|seg|segm|segmentation|gt|annotation|groundtruth)"
MASK_ENDING = re.compile(rf"(_gtFine_label(Train)?Ids|[ ._-]{ENDING}|[ ._-]ground[ _-]truth)$", re.I)
IMAGE_ENDING = re.compile(r"(_leftImg8bit|[_-](image|img))$", re.I)
CAMVID_ENDING = re.compile(r"_L$")
"""Ending of CamVid's labels. Images may end in it too, so it is recognised only in folders of annotations."""


@dataclasses.dataclass(frozen=True)
class FolderRole:
    """The meaning of a folder's name: images, annotations, and the split or ""."""

    images: bool = False
    annotations: bool = False
    split: str = ""


NO_ROLE = FolderRole()


@functools.lru_cache(maxsize=4096)
def folder_role(name: str) -> FolderRole:
    """The meaning of a folder's name; NO_ROLE if it has an unknown word."""
    role = NO_ROLE
    words = [name.lower()] if _singular(name.lower()) in IMAGE_WORDS else WORDS.findall(name)
    for word in words:
        word_role = _word_role(word.lower())
        if word_role is None:
            return NO_ROLE
        role = FolderRole(
            role.images or word_role.images,
            role.annotations or word_role.annotations,
            role.split or word_role.split,
        )
    if role.annotations:
        return dataclasses.replace(role, images=False)
    return role


def _word_role(word: str) -> FolderRole | None:
    """The meaning of a word; None if it is unknown."""
    for split in sorted(SPLIT_NAMES, key=len, reverse=True):  # "trainannot"
        rest = _singular(word.removeprefix(split)) if word.startswith(split) else None
        if rest is not None and (not rest or rest in IMAGE_WORDS | ANNOTATION_WORDS):
            return FolderRole(rest in IMAGE_WORDS, rest in ANNOTATION_WORDS, SPLIT_NAMES[split])
    word = _singular(word)
    if word in IMAGE_WORDS or word in ANNOTATION_WORDS:
        return FolderRole(word in IMAGE_WORDS, word in ANNOTATION_WORDS)
    return NO_ROLE if word in OTHER_WORDS or (word.isdigit() and len(word) > 2) else None


def _singular(word: str) -> str:
    return word if word == "class" else word.removesuffix("s")


def among_annotations(parts: tuple[str, ...]) -> bool:
    """Whether the path is in a folder of annotations."""
    return any(folder_role(part).annotations for part in parts[:-1])


def among_images(parts: tuple[str, ...]) -> bool:
    """Whether the path is in a folder of images, and not in one of annotations."""
    return any(folder_role(part).images for part in parts[:-1]) and not among_annotations(parts)


def is_annotation(parts: tuple[str, ...], stem: str, apart: bool) -> bool:
    """Whether a file is an annotation.

    Args:
        parts: names of its folders and its own name.
        stem: its stem without a number after the ending of a mask.
        apart: whether annotations have their own folders. If so, a file in a folder of images is an image,
            whatever its ending.
    """
    if among_annotations(parts):
        return True
    return not (apart and among_images(parts)) and MASK_ENDING.search(stem) is not None


def split_and_key(parts: tuple[str, ...], stem: str, whole: bool = False) -> tuple[str, str]:
    """(split or "", key) of a file. An image and its annotation have the same key.

    The key is the path without the names of recognised folders and without the endings of masks.

    Args:
        parts: names of its folders and its own name.
        stem: its stem.
        whole: whether the ending of a mask is part of the name, as for images.
    """
    split, names = "", []
    for part in parts[:-1]:
        role = folder_role(part)
        is_second_split = role.split and split and not (role.images or role.annotations)
        if is_second_split or role == NO_ROLE:
            names.append(part)
        split = split or role.split
    stem = IMAGE_ENDING.sub("", stem)
    if not whole:
        stem = MASK_ENDING.sub("", stem)
        stem = CAMVID_ENDING.sub("", stem) if among_annotations(parts) else stem
    return split, "/".join([*names, stem])


def parts_below(path: epath.Path, raw: epath.Path) -> tuple[str, ...]:
    """Names of the folders and the file below `raw`. (`relative_to` is as slow as an access to the disk.)"""
    return path.parts[len(raw.parts) :]


def split_of_file(stem: str) -> str:
    """The split in a file's name, or "": "train" for "instances_train2017"."""
    return next(
        (SPLIT_NAMES[word] for word in map(str.lower, WORDS.findall(stem)) if word in SPLIT_NAMES), ""
    )


_cached_files: contextvars.ContextVar[dict[epath.Path, list[epath.Path]] | None]
_cached_files = contextvars.ContextVar("_cached_files", default=None)


@contextlib.contextmanager
def cached_walks() -> Iterator[None]:
    """Context in which each folder tree is listed only once."""
    token = _cached_files.set({})
    try:
        yield
    finally:
        _cached_files.reset(token)


def files_below(folder: epath.Path) -> list[epath.Path]:
    """All files of a tree, without leftovers: the files of a folder by name, then those of its subfolders."""
    cache = _cached_files.get()
    if cache is None:
        return _walk(folder)
    if folder not in cache:
        cache[folder] = _walk(folder)
    return cache[folder]


def _walk(folder: epath.Path, above: tuple[str, ...] = ()) -> list[epath.Path]:
    """See `files_below`. Does not follow links to the folders `above`, which would lead here again."""
    files, nested = [], []
    above = (*above, os.path.realpath(folder))
    for entry in listed(folder):
        if not entry.is_dir():
            files.append(entry)
        elif os.path.realpath(entry) not in above:
            nested += _walk(entry, above)
    return files + nested
