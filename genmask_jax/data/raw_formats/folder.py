"""A user's own images, in the layouts of common tools. Each layout has a module."""

import dataclasses
from collections.abc import Callable

from etils import epath

from genmask_jax.data.raw_formats import (
    beside,
    binary_masks,
    class_maps,
    coco_tree,
    label_studio,
    metadata,
    yolo,
)
from genmask_jax.data.raw_formats.folder_names import cached_walks, folder_role
from genmask_jax.data.raw_formats.layout_check import LayoutCheck, need_folder, no_layout_error
from genmask_jax.data.raw_formats.plan import Plan
from genmask_jax.utils.paths import listed


@dataclasses.dataclass(frozen=True)
class Layout:
    """The functions of a layout: one recognises it in a folder, one reads it."""

    recognise: Callable[[epath.Path], LayoutCheck]
    read: Callable[[epath.Path], Plan]


FORMATS = {
    "metadata": Layout(metadata.recognise, metadata.read),
    "label_studio": Layout(label_studio.recognise, label_studio.read),
    "yolo": Layout(yolo.recognise, yolo.read),
    "class_maps": Layout(class_maps.recognise, class_maps.read),
    "masks": Layout(binary_masks.recognise, binary_masks.read),
    "coco": Layout(coco_tree.recognise, coco_tree.read),
    "beside": Layout(beside.recognise, beside.read),
    "shapes": Layout(beside.recognise_apart, beside.read_apart),
    "captions": Layout(metadata.recognise_captions, metadata.read),
}
"""Layouts by the value of --format, in the order in which they are tried."""


def read(raw: epath.Path, format: str = "") -> Plan:
    """Reads a folder in the given format, or in the first that fits, and prints the format.

    Raises:
        UserError: the folder does not exist, no format fits, or the folder has no usable image.
    """
    with cached_walks():
        need_folder(raw)
        folder, raw = raw, _inner(raw)
        checks = {name: layout.recognise(raw) for name, layout in FORMATS.items()}
        evidence_by_format = {name: check.found for name, check in checks.items() if check.found}
        if not format and not evidence_by_format:
            raise no_layout_error(folder, raw, list(checks.values()))
        name = format or next(iter(evidence_by_format))
        others = ", ".join(
            f"{other} ({evidence})" for other, evidence in evidence_by_format.items() if other != name
        )
        note = f"; it also looks like {others}; --format sets another" if others and not format else ""
        reason = f": {evidence_by_format[name]}" if name in evidence_by_format else " (--format)"
        print(f"{raw}: read as {name}{reason}{note}")
        return FORMATS[name].read(raw)


def _inner(raw: epath.Path) -> epath.Path:
    """The folder inside, if it is the only content, as in unpacked archives: photos/photos/images."""
    while True:
        entries = [path for path in listed(raw) if not path.name.lower().startswith(("readme", "license"))]
        role = folder_role(entries[0].name) if len(entries) == 1 and entries[0].is_dir() else None
        if role is None or role.annotations or role.split:
            return raw
        raw = entries[0]
