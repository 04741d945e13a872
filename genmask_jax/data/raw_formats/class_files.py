"""Reads class lists in the forms of common tools, as rows of a number, a name and a colour.

    road                        a name per line; the first has number 0, and an empty line counts
    0 road | 0,road | road,0    a name and its number; also 0. road, 0) road, [0] road, 0 - road, road = 0
    64 128 64<TAB>Animal        a colour and a name (CamVid's label_colors.txt), in either order
    road:128,64,128::           VOC's and CVAT's labelmap.txt
    name,r,g,b                  a table with a heading (class_dict.csv, _classes.csv, objectInfo150.txt)

and YAML and JSON: a list or a mapping of names, at the top level or below `names`, `id2label`, `labels` and
others.
"""

import csv
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml
from etils import epath

from genmask_jax.utils.errors import UserError, first_line, short_repr
from genmask_jax.utils.images import SUFFIXES
from genmask_jax.utils.paths import parse_json, read_text


@dataclasses.dataclass(frozen=True)
class Row:
    """A class in a file: its name, its number and its colour (0xRRGGBB), or None if the file has none.

    counted: whether the number is the position in the list.
    """

    name: str
    number: int | None = None
    colour: int | None = None
    counted: bool = False


KEYS = ("id2label", "names", "class_names", "classes", "labels", "categories", "label2id", "items")
"""Keys of names in YAML and JSON."""
NAME = ("readable", "name", "title", "label", "class", "classname", "category", "labelname")
NUMBER = (
    *("pixelvalue", "id", "classid", "labelid", "index", "idx", "number", "value", "classnumber"),
    *("", "unnamed"),  # the index column of pandas
)
COLOUR = ("color", "colour", "colorrgb", "rgb", "hex", "colorhex")
CHANNELS = (("r", "red"), ("g", "green"), ("b", "blue"))
"""Headings of columns and keys of entries, only letters, in lower case."""
TITLE = re.compile(r"(class|label|category)([_ ]?names?)?|names?|classes|labels|categories", re.I)
"""Heading of a list with one column."""
COLOUR_FIRST = re.compile(r"(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+([^\s\d].*)$")
COLOUR_LAST = re.compile(r"(.*[^\s,;:])[\s,;:]+(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})$")
LABELMAP = re.compile(r"([^:]+):(\d{1,3}),(\d{1,3}),(\d{1,3})(:[^:]*){0,2}$")
HEX = re.compile(r"(.*[^\s,;:])[\s,;:]+(#[0-9a-f]{6})$", re.I)
NUMBER_FIRST = (
    re.compile(r"(?P<number>-?\d{1,9})\s*(?:[.)](?!\d)|[:=]>?|\s-+>?\s)\s*(?P<name>\S.*)$"),
    re.compile(r"[\[(](?P<number>-?\d{1,9})[\])][\s:=,;-]*(?P<name>\S.*)$"),
    re.compile(r"(?P<number>-?\d{1,9})[\s:,;]+(?P<name>\S.*)$"),
)
NUMBER_LAST = (
    re.compile(r"(?P<name>.*[^\s=-])\s*(?:[:=]>?|\s-+>?\s)\s*(?P<number>-?\d{1,9})$"),
    re.compile(r"(?P<name>.*[^\s:=,;-])[\s:=,;-]*[\[(](?P<number>-?\d{1,9})[\])]$"),
    re.compile(r"(?P<name>.*[^\s:,;])[\s:,;]+(?P<number>-?\d{1,9})$"),
)
NULL = "null"
"""Name of a class without a name in YAML or JSON; it is ignored."""
IGNORE = "__ignore__"
"""First class of labelme's lists, with number -1."""


def read_rows(path: epath.Path) -> list[Row]:
    """The classes of a file, in its order; [] for YAML or JSON without classes.

    Raises:
        UserError: the file cannot be read, or has lines in no known form.
    """
    try:
        text = read_text(path)
        if path.name.lower().endswith((".yaml", ".yml")):
            return _from_content(yaml.load(text, yaml.BaseLoader), path)  # noqa: S506 - only texts: "no" is a name
        if path.name.lower().endswith(".json"):
            return _from_content(parse_json(text), path)
        return _from_text(text, path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not text in UTF-8 ({error})") from error
    except (yaml.YAMLError, csv.Error, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error


# Text


def _from_text(text: str, path: epath.Path) -> list[Row]:
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    entries = [line for line in lines if line and not line.startswith("#")]
    return _from_table(lines, path) or _from_colours(entries) or _from_lines(lines, path)


def _from_table(lines: list[str], path: epath.Path) -> list[Row]:
    """The rows below a heading; [] if there is none."""
    lines = [line for line in lines if line]
    for delimiter in "\t,;":
        table = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
        columns = {_letters(title): i for i, title in enumerate(table[0])} if table else {}
        channels = [next((columns[key] for key in keys if key in columns), None) for keys in CHANNELS]
        name, number, colour = (
            next((columns[key] for key in keys if key in columns), None) for keys in (NAME, NUMBER, COLOUR)
        )
        if name is None or len(columns) < 2 or (number, colour, channels[0]) == (None, None, None):
            continue
        rows = []
        for i, cells in enumerate(table[1:], 2):
            try:
                text = _first(cells[name]) if path.name.lower().startswith("objectinfo") else cells[name]
                levels = [cells[k] for k in channels if k is not None] or (
                    cells[colour] if colour is not None else None
                )
                number_of = int(cells[number]) if number is not None else None
                rows.append(Row(text.strip(), number_of, None if levels is None else _colour(levels)))
            except (IndexError, ValueError):
                raise UserError(f"{path}: line {i} does not match the heading") from None
        return rows
    return []


def _first(name: str) -> str:
    """The first of ADE's synonyms."""
    return re.split(r"[;,]", name)[0]


def _from_colours(lines: list[str]) -> list[Row]:
    """Rows from lines with a name and a colour, and optionally a number first; [] for other lines."""
    for pattern in (LABELMAP, COLOUR_FIRST, COLOUR_LAST, HEX):
        matches = [pattern.match(line) for line in lines]
        if not lines or not all(matches):
            continue
        parts = [match.groups() for match in matches if match]
        if pattern is COLOUR_FIRST:
            pairs = [(part[3], list(part[:3])) for part in parts]
        else:
            pairs = [(part[0], list(part[1:4]) if pattern is not HEX else part[1]) for part in parts]
        try:
            named = [(name.strip(), _colour(levels)) for name, levels in pairs]
        except ValueError:
            continue
        numbers = [_numbered(name, NUMBER_FIRST) for name, _ in named]
        if all(numbers):
            return [Row(n[1], n[0], c) for n, (_, c) in zip(numbers, named, strict=True) if n]
        return [Row(name, None, colour) for name, colour in named]
    return []


def _from_lines(lines: list[str], path: epath.Path) -> list[Row]:
    """Rows from lines with names, or with numbers and names."""
    while lines and re.match(r"#(\s|#|$)", lines[0]):
        del lines[0]
    if len(lines) > 1 and TITLE.fullmatch(_unquoted(lines[0])):
        del lines[0]
    entries = [line for line in lines if line and not re.match(r"#\s", line)]
    pairs = _columns(entries)
    for forms in (NUMBER_FIRST, NUMBER_LAST):
        numbered = [_numbered(line, forms) for line in entries]
        if not pairs and numbered and all(numbered):
            pairs = [pair for pair in numbered if pair]
            pairs = pairs if _is_numbering(pairs, forms is NUMBER_FIRST) else []
    if pairs:
        return [Row(_unquoted(name), number) for number, name in pairs]
    _need_one_form(lines, entries, path)
    offset = 1 if lines and lines[0] == IGNORE else 0
    return [Row(_unquoted(line), i - offset, counted=True) for i, line in enumerate(lines) if line]


def _numbered(line: str, forms: tuple[re.Pattern[str], ...]) -> tuple[int, str] | None:
    """The number and name of a line, in the first form that matches."""
    match = next((match for form in forms if (match := form.match(line))), None)
    return None if match is None else (int(match["number"]), match["name"])


def _columns(lines: list[str]) -> list[tuple[int, str]]:
    """(number, name) of lines with two cells, one of which is a number in every line; [] for other lines."""
    for delimiter in "\t,;":
        table = [
            [cell.strip() for cell in row]
            for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        ]
        for number in (0, 1):
            if table and all(len(row) == 2 and re.fullmatch(r"-?\d{1,9}", row[number]) for row in table):
                return [(int(row[number]), row[1 - number]) for row in table]
    return []


def _is_numbering(pairs: list[tuple[int, str]], first: bool) -> bool:
    """Whether numbers next to names are class numbers, not part of the names ("2 wheeler", "zone 1")."""
    numbers, names = [number for number, _ in pairs], {name for _, name in pairs}
    if len(pairs) == 1:
        return numbers[0] in (-1, 0, 1, 255)
    consecutive = (
        first and numbers[0] in (-1, 0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    )
    return len(names) == len(pairs) or (consecutive and len(names) > 1)


def _need_one_form(lines: list[str], entries: list[str], path: epath.Path) -> None:
    """Raises UserError for a list whose lines have different forms."""
    numbered = [_numbered(line, NUMBER_FIRST) for line in entries]
    if entries and numbered[0] and numbered[0][0] in (0, 1) and not all(numbered):
        unnumbered = short_repr(entries[numbered.index(None)])
        raise UserError(
            f"{path}: {unnumbered} has no number, but other lines have; write `number name` in each line"
        )
    if len(entries) == 1 and len(re.split(r"[,;\t]", entries[0])) > 2:
        raise UserError(f"{path}: {short_repr(entries[0])} is only one line; write one name per line")
    ends = [re.search(r"[,;\t]\s*-?\d+$", line) for line in entries]
    if any(ends) and not all(ends):
        unnumbered = short_repr(entries[next(i for i, end in enumerate(ends) if not end)])
        raise UserError(
            f"{path}: {unnumbered} has no number, but other lines have; write `number name` in each line"
        )
    last = [_numbered(line, NUMBER_LAST) for line in entries]
    if any(numbered) and any(last) and all(a or b for a, b in zip(numbered, last, strict=True)):
        raise UserError(
            f"{path}: some lines begin with a number, others end with one; write `number name` in each line"
        )
    comment = next((i for i, line in enumerate(lines, 1) if re.match(r"#\s", line)), None)
    if comment is not None:
        raise UserError(
            f"{path}: line {comment} may be a comment; delete it, or write `number name` in each line"
        )


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text


# YAML and JSON


def _from_content(content: Any, path: epath.Path) -> list[Row]:
    if isinstance(content, Mapping):
        if "annotations" in content:  # COCO's
            return []
        for key in KEYS:
            if isinstance(content.get(key), (list, Mapping)):
                return _from_content(content[key], path)
        return _from_mapping(content, path)
    return list(_from_list(content, path)) if isinstance(content, list) and not _lists_images(content) else []


def _lists_images(entries: Iterable[Any]) -> bool:
    """Whether an entry has the name of an image file as a value."""
    values = (value for entry in entries if isinstance(entry, Mapping) for value in entry.values())
    return any(isinstance(value, str) and value.lower().endswith(SUFFIXES) for value in values)


def _from_mapping(content: Mapping[Any, Any], path: epath.Path) -> list[Row]:
    """Rows from names by number, numbers by name, or colours by name; [] for other mappings."""
    if _lists_images(content.values()):
        return []
    numbers = [_integer(value) for value in content.values()]
    if all(
        _integer(key) is not None and isinstance(value, (str, Mapping, type(None)))
        for key, value in content.items()
    ):
        rows = [
            _from_entry(one, path) if isinstance(one, Mapping) else Row(one or NULL)
            for one in content.values()
        ]
        return [
            dataclasses.replace(row, number=_integer(key)) for row, key in zip(rows, content, strict=True)
        ]
    if sorted(n for n in numbers if n is not None) in (
        list(range(len(content))),
        list(range(1, len(content) + 1)),
    ):
        return [Row(str(name), number) for name, number in zip(content, numbers, strict=True)]
    try:
        return [Row(str(name), None, _colour(value)) for name, value in content.items()]
    except (ValueError, TypeError):
        return []


def _from_list(content: list[Any], path: epath.Path) -> Iterator[Row]:
    offset = 1 if content and (content[0] == IGNORE) else 0
    for i, entry in enumerate(content, -offset):
        if entry is None or isinstance(entry, str):
            yield Row(entry or NULL, i, counted=True)
        elif isinstance(entry, Mapping):
            row = _from_entry(entry, path)
            yield row if row.number is not None else dataclasses.replace(row, number=i)
        else:
            raise UserError(f"{path}: {short_repr(entry)} is not the name of a class")


def _from_entry(entry: Mapping[str, Any], path: epath.Path) -> Row:
    values = {_letters(str(key)): value for key, value in entry.items()}
    name, number, colour = (
        next((values[key] for key in keys if values.get(key) not in (None, "")), None)
        for keys in (NAME, NUMBER, COLOUR)
    )
    try:
        return Row(_text(name), _integer(number), None if colour is None else _colour(colour))
    except ValueError:
        raise UserError(f"{path}: an entry has no name or an invalid colour: {short_repr(entry)}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


def _integer(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 10**9 else None
    return int(value) if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,9}\s*", value) else None


def _colour(value: Any) -> int:
    """0xRRGGBB of three levels, "r,g,b" or "#rrggbb". Raises ValueError."""
    if isinstance(value, str) and re.fullmatch(r"\s*#?[0-9a-fA-F]{6}\s*", value):
        return int(value.strip().lstrip("#"), 16)
    levels = re.findall(r"\d+", value) if isinstance(value, str) else value
    if not isinstance(levels, list) or len(levels) not in (3, 4):
        raise ValueError
    if not all(isinstance(level, int | str) for level in levels):
        raise ValueError
    red, green, blue = (int(level) for level in levels[:3])
    if not all(0 <= level <= 255 for level in (red, green, blue)):
        raise ValueError
    return red << 16 | green << 8 | blue
