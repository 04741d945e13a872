"""Numbers of Cityscapes' classes, which the names of its files determine.

`X_gtFine_labelIds.png` has the `id` of each class, and `X_gtFine_labelTrainIds.png` its `trainId`, whatever
the order of the names in a class list.
"""

import dataclasses
from collections.abc import Sequence

from etils import epath

from genmask_jax.data.raw_formats.class_list import ClassList
from genmask_jax.data.raw_formats.names import is_class, phrase
from genmask_jax.data.raw_formats.palettes import CITYSCAPES_ALL, CITYSCAPES_BORDERS, cityscapes_names
from genmask_jax.data.raw_formats.versions import CITYSCAPES
from genmask_jax.utils.errors import UserError

IDS, TRAIN_IDS = "labelids", "labeltrainids"
DISPLAY_NAMES = {IDS: "labelIds", TRAIN_IDS: "labelTrainIds"}


def numbering(path: epath.Path) -> str:
    """The numbering in the name of a file, IDS or TRAIN_IDS; "" if there is none."""
    match = CITYSCAPES.search(path.stem)
    return match[2].lower() if match and match[2].lower() in DISPLAY_NAMES else ""


def renumber(classes: ClassList | None, paths: Sequence[epath.Path]) -> ClassList | None:
    """The class list with the numbers of Cityscapes' files, if it has Cityscapes' names.

    Without a list, it is Cityscapes' own. If there are files of both numberings, a list of the 19 evaluated
    names uses `trainId`, a longer list `id`.

    Args:
        classes: the folder's class list.
        paths: paths of all annotations.

    Raises:
        UserError: the list has only some of Cityscapes' names, with other numbers than the files of ids.
    """
    numberings = {name for path in paths if (name := numbering(path))}
    if classes is None and not numberings:
        return None
    if classes is None:
        chosen = TRAIN_IDS if TRAIN_IDS in numberings else IDS
        names = cityscapes_names(chosen == TRAIN_IDS)
        return ClassList(names, {}, f"Cityscapes' {DISPLAY_NAMES[chosen]}", standard=True, numbering=chosen)
    scored = set(cityscapes_names(train_ids=True).values())
    class_names = {phrase(name) for name in classes.names.values() if is_class(name)} - CITYSCAPES_BORDERS
    if scored <= class_names:
        classes = _without_borders(classes)
    if not numberings:
        return classes
    if not scored <= class_names <= {*CITYSCAPES_ALL.values()}:
        if numberings == {IDS} and class_names <= {*CITYSCAPES_ALL.values()}:
            _need_ids(classes)
        return classes
    preferred = TRAIN_IDS if class_names == scored else IDS
    chosen = preferred if preferred in numberings else numberings.pop()
    standard = CITYSCAPES_ALL if chosen == IDS else cityscapes_names(train_ids=True)
    names = {number: name if name in class_names else "void" for number, name in standard.items()}
    source = f"{classes.source}, by Cityscapes' {DISPLAY_NAMES[chosen]}"
    return ClassList(names, classes.colours, source, numbering=chosen)


def _without_borders(classes: ClassList) -> ClassList:
    """The list with classes such as "ego vehicle" as void."""
    names, colours = (
        {key: "void" if phrase(name) in CITYSCAPES_BORDERS else name for key, name in table.items()}
        for table in (classes.names, classes.colours)
    )
    return dataclasses.replace(classes, names=names, colours=colours)


def _need_ids(classes: ClassList) -> None:
    ids = {name: number for number, name in CITYSCAPES_ALL.items()}
    for number, name in classes.names.items():
        if ids.get(phrase(name), number) != number and is_class(name):
            raise UserError(
                f"{classes.source}: {phrase(name)} has the number {number}, but in files called *_labelIds "
                f"it is {ids[phrase(name)]}; write Cityscapes' ids, or all of its 19 names, or rename the "
                "files"
            )
