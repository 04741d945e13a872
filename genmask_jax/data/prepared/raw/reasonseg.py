"""ReasonSeg's layout: RAW/{train,val,test}/X.jpg, each beside an X.json of texts and labelled shapes."""

from typing import Any

from etils import epath

from genmask_jax.data.prepared.raw import shapes
from genmask_jax.data.prepared.raw.plan import Expression, Plan, PlannedImage, Target, read_json
from genmask_jax.errors import UserError

SPLITS = ("train", "val", "test")
ENCODINGS = ("utf-8-sig", "cp1252")


def read(raw: epath.Path) -> Plan:
    """Reads every text of every image as an expression; the first has the image's stem as its id.

    Raises:
        UserError: there is no split.
    """
    folders = [raw / split for split in SPLITS if (raw / split).is_dir()]
    if not folders:
        raise UserError(f"--raw={raw}: there is no {', '.join(SPLITS)}; give the folder that holds them")
    splits, problems = {}, []
    for folder in folders:
        stems = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".jpg"}
        annotated = {path.stem: path for path in sorted(folder.glob("*.json"))}
        name = folder.name
        problems += [
            f"{name}/{s}.json is an annotation without an image" for s in annotated if s not in stems
        ]
        problems += [
            f"{name}/{path.name} is an image without an annotation"
            for stem, path in stems.items()
            if stem not in annotated
        ]
        splits[name] = []
        for stem in (stem for stem in stems if stem in annotated):
            try:
                targets, expressions = read_annotation(annotated[stem], problems)
            except (UserError, ValueError) as error:
                problems.append(str(error))
            else:
                image = PlannedImage(str(stems[stem]), stem, targets=targets, expressions=expressions)
                splits[name].append(image)
    return Plan(splits, problems)


def read_annotation(
    path: epath.Path, problems: list[str]
) -> tuple[tuple[Target, ...], tuple[Expression, ...]]:
    """The single target of an annotation and its expressions; reports shapes left out in `problems`.

    Raises:
        UserError: the file cannot be read.
        ValueError: it has no text, or no shape that can be painted.
    """
    where = f"{path.parent.name}/{path.name}"
    content = read_json(path, dict, ENCODINGS)
    painted, complaints = shapes.usable(content.get("shapes"))
    problems.extend(f"{where}: {complaint}" for complaint in complaints)
    texts: Any = content.get("text")
    texts = [texts] if isinstance(texts, str) else texts
    texts = texts if isinstance(texts, list) else []
    texts = [text.strip() for text in texts if isinstance(text, str) and text.strip()]
    if not texts:
        raise ValueError(f"{where} has no text")
    if not painted:
        raise ValueError(f"{where} has no shape that can be painted")
    sentence = bool(content.get("is_sentence", False))
    names = [path.stem, *(f"{path.stem}#{i}" for i in range(1, len(texts)))]
    said = (Expression(name, text, 0, sentence) for name, text in zip(names, texts, strict=True))
    return (Target(0, shapes=painted),), tuple(said)
