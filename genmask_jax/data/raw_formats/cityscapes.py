"""Numbers of Cityscapes' classes, which the names of its files determine.

`X_gtFine_labelIds.png` has the `id` of each class, and `X_gtFine_labelTrainIds.png` its `trainId`, whatever
the order of the names in a class list.
"""

import dataclasses
from collections.abc import Sequence

from etils import epath

from genmask_jax.data.raw_formats.class_list import ClassList
from genmask_jax.data.raw_formats.names import is_asked, phrase
from genmask_jax.data.raw_formats.palettes import CITYSCAPES_ALL, CITYSCAPES_BORDERS, cityscapes_names
from genmask_jax.data.raw_formats.versions import CITYSCAPES
from genmask_jax.utils.errors import UserError

IDS, TRAIN_IDS = "labelids", "labeltrainids"
SHOWN = {IDS: "labelIds", TRAIN_IDS: "labelTrainIds"}


def numbering(path: epath.Path) -> str:
    """The numbering in the name of a file, IDS or TRAIN_IDS; "" if there is none."""
    match = CITYSCAPES.search(path.stem)
    return match[2].lower() if match and match[2].lower() in SHOWN else ""


def in_its_numbers(listed: ClassList | None, paths: Sequence[epath.Path]) -> ClassList | None:
    """The class list with the numbers of Cityscapes' files, if it has Cityscapes' names.

    Without a list, it is Cityscapes' own. If there are files of both numberings, a list of the 19 evaluated
    names uses `trainId`, a longer list `id`.

    Args:
        listed: the folder's class list.
        paths: paths of all annotations.

    Raises:
        UserError: the list has only some of Cityscapes' names, with other numbers than the files of ids.
    """
    there = {name for path in paths if (name := numbering(path))}
    if listed is None and not there:
        return None
    if listed is None:
        its = TRAIN_IDS if TRAIN_IDS in there else IDS
        names = cityscapes_names(its == TRAIN_IDS)
        return ClassList(names, {}, f"Cityscapes' {SHOWN[its]}", standard=True, numbering=its)
    scored = set(cityscapes_names(train_ids=True).values())
    asked = {phrase(name) for name in listed.names.values() if is_asked(name)} - CITYSCAPES_BORDERS
    if scored <= asked:
        listed = _without_borders(listed)
    if not there:
        return listed
    if not scored <= asked <= {*CITYSCAPES_ALL.values()}:
        if there == {IDS} and asked <= {*CITYSCAPES_ALL.values()}:
            _need_ids(listed)
        return listed
    wanted = TRAIN_IDS if asked == scored else IDS
    its = wanted if wanted in there else there.pop()
    standard = CITYSCAPES_ALL if its == IDS else cityscapes_names(train_ids=True)
    names = {number: name if name in asked else "void" for number, name in standard.items()}
    source = f"{listed.source}, by Cityscapes' {SHOWN[its]}"
    return ClassList(names, listed.colours, source, numbering=its)


def _without_borders(listed: ClassList) -> ClassList:
    """The list with classes such as "ego vehicle" as void."""
    names, colours = (
        {key: "void" if phrase(name) in CITYSCAPES_BORDERS else name for key, name in table.items()}
        for table in (listed.names, listed.colours)
    )
    return dataclasses.replace(listed, names=names, colours=colours)


def _need_ids(listed: ClassList) -> None:
    ids = {name: number for number, name in CITYSCAPES_ALL.items()}
    for number, name in listed.names.items():
        if ids.get(phrase(name), number) != number and is_asked(name):
            raise UserError(
                f"{listed.source}: {phrase(name)} has the number {number}, but in files called *_labelIds it "
                f"is {ids[phrase(name)]}; write Cityscapes' ids, or all of its 19 names, or rename the files"
            )
