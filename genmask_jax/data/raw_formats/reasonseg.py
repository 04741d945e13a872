"""ReasonSeg's layout: RAW/{train,val,test}/X.jpg, each next to X.json with texts and labelled shapes."""

from typing import Any

from etils import epath

from genmask_jax.data.masks import Size
from genmask_jax.data.raw_formats import shapes
from genmask_jax.data.raw_formats.layout import SPLITS, images_by_stem, read_json, split_folders
from genmask_jax.data.raw_formats.names import is_text
from genmask_jax.data.raw_formats.plan import Expression, Plan, PlannedImage, Target
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import read_frame
from genmask_jax.utils.paths import listed

FALLBACK = "cp1252"
"""The encoding of published annotations that are not in UTF-8."""


def read(raw: epath.Path) -> Plan:
    """Reads every text of every image as an expression; the first has the image's stem as its id.

    Raises:
        UserError: there is no split.
    """
    problems = Problems()
    folders = split_folders(raw, problems)
    if not folders:
        raise UserError(f"--raw={raw}: there is no folder {' or '.join(SPLITS)}; give their parent folder")
    return Plan({split: _read_split(folder, problems) for split, folder in folders.items()}, problems)


def _read_split(folder: epath.Path, problems: Problems) -> list[PlannedImage]:
    images = images_by_stem(folder, problems)
    annotated = {path.stem: path for path in listed(folder, ".json")}
    for stem, path in annotated.items():
        if stem not in images:
            problems.add(f"{folder.name}/{path.name} is an annotation without an image")
    planned = []
    for stem, path in images.items():
        if stem not in annotated:
            problems.add(f"{folder.name}/{path.name} is an image without an annotation")
            continue
        try:
            frame = read_frame(path)
            targets, expressions = read_annotation(annotated[stem], frame and frame.upright, problems)
        except (UserError, ValueError) as error:
            problems.add(str(error))
        else:
            planned.append(
                PlannedImage(str(path), stem, turned=True, targets=targets, expressions=expressions)
            )
    return planned


def read_annotation(
    path: epath.Path, size: Size | None, problems: Problems
) -> tuple[tuple[Target, ...], tuple[Expression, ...]]:
    """The single target of an annotation and its expressions.

    An annotation without shapes, or with only flags, has an empty mask: the published test set has two of
    them, and its scores count them. Shapes that are left out are reported.

    Args:
        path: path of the annotation.
        size: (height, width) of its image; None if the image cannot be read.
        problems: receives problems.

    Raises:
        UserError: the file cannot be read.
        ValueError: the file has no text, no list of shapes, or no valid shape.
    """
    where = f"{path.parent.name}/{path.name}"
    content = read_json(path, dict, FALLBACK)
    texts: Any = content.get("text")
    texts = [texts] if isinstance(texts, str) else texts
    texts = texts if isinstance(texts, list) else []
    texts = [text.strip() for text in texts if is_text(text)]
    if not texts:
        raise ValueError(f"{where} has no text")
    if not isinstance(content.get("shapes"), list):
        raise ValueError(f"{where} has no list of shapes")
    painted, complaints = shapes.usable(content["shapes"], size)
    problems.extend(f"{where}: {complaint}" for complaint in complaints)
    if not painted and complaints:
        raise ValueError(f"{where} has no valid shape")
    if not painted:
        problems.note(f"{where} has no shape; its mask is empty")
    sentence = bool(content.get("is_sentence", False))
    names = [path.stem, *(f"{path.stem}#{i}" for i in range(1, len(texts)))]
    expressions = (Expression(name, text, 0, sentence) for name, text in zip(names, texts, strict=True))
    return (Target(0, shapes=painted),), tuple(expressions)
