"""Label Studio's brush labels: a PNG for each region; the JSON export has the names of the images.

    RAW/task-1-annotation-2-by-1-tag-Road-0.png, RAW/project-1.json, RAW/images/X.jpg

A file name has the ids of task and annotation, the user, the name of the tag in the labelling interface, the
label, and a number. User, tag and label may contain hyphens. The label is one of the labels in the JSON
export; without it, the part after the common beginning of an annotation's files, or after the last hyphen. A
label refers to all of its regions. Pixels of a label such as "Ignore" do not count.

The image of a task is named in the JSON export of the same project. Without it, an image named after the task
is used, such as task-1.jpg or 1.jpg. If a task has several annotations, the last is used.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from genmask_jax.data.raw_formats.black_and_white import threshold_of
from genmask_jax.data.raw_formats.folder_names import files_below
from genmask_jax.data.raw_formats.image_index import ImageIndex
from genmask_jax.data.raw_formats.layout import captions_of, read_json
from genmask_jax.data.raw_formats.layout_check import LayoutCheck, count, folders
from genmask_jax.data.raw_formats.mask_files import plan_masks
from genmask_jax.data.raw_formats.names import is_class, is_ignored, phrase
from genmask_jax.data.raw_formats.pairs import Pair, group_by_split
from genmask_jax.data.raw_formats.plan import Plan
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import SUFFIXES

REGION = re.compile(r"task-(\d+)-annotation-(\d+)-by-(.*-.+-.+)-\d+\.png$")
Regions = dict[int, dict[int, list[tuple[str, epath.Path]]]]
"""(label, path) of all regions, by the ids of task and annotation."""


def recognise(raw: epath.Path) -> LayoutCheck:
    """Checks for this layout."""
    regions, problems = _regions(raw), Problems()
    files = _paths(regions)
    if not files:
        return LayoutCheck()
    images = _images(raw, set(regions), problems)
    if images:
        return LayoutCheck(
            f"{count(list(images), 'image')} with Label Studio's brush labels, {count(files, 'PNG')}"
        )
    return LayoutCheck(
        seen=f"{count(files, 'PNG')} of Label Studio's brush labels{folders(files, raw)}, but no image",
        fix="add the JSON export of the same project and the images, or name each image after its task, "
        "task-1.jpg",
    )


def read(raw: epath.Path) -> Plan:
    """Images with their labels.

    Raises:
        UserError: there is no PNG of a region.
    """
    regions, problems, ids = _regions(raw), Problems(), itertools.count()
    if not regions:
        raise UserError(f"--raw={raw}: there is no PNG such as task-1-annotation-1-by-1-tag-Road-0.png")
    images, index = _images(raw, set(regions), problems), ImageIndex(raw)
    planned, classes = [], {}
    threshold = threshold_of(_paths(regions), f"--raw={raw}")
    for task in sorted(regions):
        last, *earlier = sorted(regions[task], reverse=True)
        if task not in images:
            problems.add(f"the image of task {task} is not found")
            continue
        if earlier:
            problems.note(f"task {task} has {len(earlier) + 1} annotations; the last, {last}, is used")
        split, key = index.split_and_key(images[task])
        pair = Pair(key, images[task], (), split)
        files = [(phrase(label), path) for label, path in regions[task][last] if is_class(label)]
        void = [path for label, path in regions[task][last] if is_ignored(label)]
        captions = captions_of(pair.image, problems)
        image = plan_masks(pair, files, captions, ids, threshold, problems, void)
        if image is not None:
            planned.append((pair, image))
            classes |= dict.fromkeys(expression.text for expression in image.expressions)
    return Plan(group_by_split(raw, planned, problems), problems, tuple(classes))


def _regions(raw: epath.Path) -> Regions:
    regions: Regions = {}
    for path in files_below(raw):
        if match := REGION.match(path.name):
            annotation = regions.setdefault(int(match[1]), {}).setdefault(int(match[2]), [])
            annotation.append((match[3], path))
    labels = {label for path, task in _all_tasks(raw) for label in _labels(task)} if regions else set()
    beginnings = {
        beginning
        for annotations in regions.values()
        for files in annotations.values()
        if (beginning := _beginning({name for name, _ in files}))
    }
    return {
        task: {
            number: [(_label(name, labels, beginnings), path) for name, path in files]
            for number, files in annotations.items()
        }
        for task, annotations in regions.items()
    }


def _paths(regions: Regions) -> list[epath.Path]:
    return [path for task in regions.values() for files in task.values() for _, path in files]


def _beginning(names: set[str]) -> str:
    """The common beginning of "user-tag-label" over an annotation's regions; "" if it has no tag."""
    columns = zip(*(name.split("-")[:-1] for name in names), strict=False)  # up to the shortest
    same = [column[0] for column in itertools.takewhile(lambda column: len(set(column)) == 1, columns)]
    return "-".join([*same, ""]) if len(names) > 1 and len(same) > 1 else ""


def _label(name: str, labels: set[str], beginnings: set[str]) -> str:
    """The label in "user-tag-label"."""
    matches = [label for label in labels if phrase(name).endswith(f"-{phrase(label)}")]
    if matches:
        return max(matches, key=len)
    prefix = min((beginning for beginning in beginnings if name.startswith(beginning)), key=len, default="")
    return name.removeprefix(prefix) if prefix else name.rpartition("-")[2]


def _labels(content: Any) -> Iterator[str]:
    """All brush labels in a task of the JSON export."""
    for key, value in content.items() if isinstance(content, dict) else ():
        if key == "brushlabels" and isinstance(value, list):
            yield from (label for label in value if isinstance(label, str) and phrase(label))
    inside: Iterable[Any] = content.values() if isinstance(content, dict) else content
    for value in inside:
        if isinstance(value, dict | list):
            yield from _labels(value)


def _images(raw: epath.Path, tasks: set[int], problems: Problems) -> dict[int, epath.Path]:
    """The images of tasks, by id."""
    index, images = ImageIndex(raw), {}
    for path, task in _all_tasks(raw):
        for name in _names(task):
            try:
                image = index.find(name)
            except ValueError as error:
                problems.add(f"{path}: the image of task {task['id']}, {name}, {error}")
                continue
            if image is not None and task["id"] in tasks:
                images.setdefault(task["id"], image)
    by_stem = {path.stem.lower().removeprefix("task").strip("-_ "): path for path in index.paths}
    return {task: by_stem[str(task)] for task in tasks if str(task) in by_stem} | images


def _all_tasks(raw: epath.Path) -> Iterator[tuple[epath.Path, dict[str, Any]]]:
    """(file, task) of all JSON exports."""
    for path in files_below(raw):
        if path.name.lower().endswith(".json"):
            yield from ((path, task) for task in _tasks(path))


def _tasks(path: epath.Path) -> list[dict[str, Any]]:
    """The tasks of a JSON export, full or minimal; [] for other files."""
    try:
        content = read_json(path, list)
    except UserError:
        return []
    return [task for task in content if isinstance(task, dict) and isinstance(task.get("id"), int)]


def _names(task: dict[str, Any]) -> list[str]:
    """Possible names of a task's image."""
    data = task.get("data")
    values = [task.get("file_upload"), *(data.values() if isinstance(data, dict) else ()), *task.values()]
    return [value for value in values if isinstance(value, str) and value.lower().endswith(SUFFIXES)]
