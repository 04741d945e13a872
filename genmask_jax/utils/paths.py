"""Paths that users give, and the folders and text files behind them."""

import codecs
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from etils import epath

from genmask_jax.utils.errors import ArgumentError, UserError

LEFTOVERS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"}
"""What operating systems leave in folders besides hidden files, in lower case."""
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by the byte order mark at the start of a file."""


URL = re.compile(r"(?!(?:gs|s3|az|hf)://)[a-z][a-z0-9+.-]*://|(?:https?|ftp):/|data:", re.IGNORECASE)
"""How addresses begin that are not paths. (The excluded ones are, of storage that `epath` reads.)

`pathlib` makes one slash of two."""
DOWNLOAD = "download the file, and give its path"
IMPORT = "launch/import_weights.py --from=hf:OWNER/NAME imports public weights"


def expand(text: str) -> str:
    """A path with the user's home directory for a `~/` at its beginning; other text is left as it is."""
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text


def expand_flags(arguments: list[str]) -> list[str]:
    """Arguments with `--flag=~/path` expanded, in which shells leave the `~` alone."""
    parts = (argument.partition("=") for argument in arguments)
    return [f"{flag}{mark}{expand(value) if flag.startswith('-') else value}" for flag, mark, value in parts]


def to_path(path: Any, argument: str, instead: str = DOWNLOAD) -> epath.Path:
    """A path as it is given to a function, with the home directory for a `~/` at its beginning.

    Args:
        path: text, or a path of any library.
        argument: its name, for the error.
        instead: what to do with a URL.

    Raises:
        ArgumentError: it is not a path, or a URL.
    """
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ArgumentError(argument, f"={path!r} is not a path")
    text = os.fspath(path)
    need_no_url(argument, text, instead)
    return epath.Path(expand(text))


def need_no_url(argument: str, value: str, instead: str = DOWNLOAD) -> None:
    """Raises ArgumentError if the value of an argument or a flag is a URL."""
    if URL.match(value):
        shown = value if len(value) <= 100 else f"{value[:100]}..."
        raise ArgumentError(argument, f"={shown}: URLs are not read; {instead}")


def make_directory(path: epath.PathLike, flag: str) -> epath.Path:
    """The directory given by a flag, created if it is missing. Raises UserError if it cannot be created."""
    directory = to_path(path, flag)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag}={path} cannot be created: {error.strerror}") from error
    return directory


def need_makeable(path: epath.PathLike, flag: str) -> epath.Path:
    """The directory given by a flag, which is there or can be created later.

    Raises:
        UserError: it is a file, or lies in one, or in a folder that cannot be written to.
    """
    directory = to_path(path, flag)
    if "://" in str(directory):
        return directory
    there = next(one for one in (directory, *directory.absolute().parents) if one.exists())
    if not there.is_dir():
        raise UserError(f"{flag}={path} cannot be created: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{flag}={path} cannot be created: {there} cannot be written to")
    return directory


def need_storable(path: epath.PathLike) -> None:
    """Raises UserError for a path in which Orbax would write checkpoints without their arrays, unnoticed.

    It finds its own files by `glob`, which takes brackets for a pattern.
    """
    if "[" in str(epath.Path(path).resolve()):
        raise UserError(
            f"{path}: Orbax cannot keep arrays in a path with a '['; rename the folder, or use another"
        )


def is_leftover(name: str) -> bool:
    """Whether a file or folder is hidden, or was left by an operating system: `._a.jpg`, `Thumbs.db`."""
    return name.startswith(".") or name.lower() in LEFTOVERS


def listed(folder: epath.Path, *suffixes: str) -> list[epath.Path]:
    """The entries of a folder by name, without leftovers; none if there is no such folder.

    (`glob` would take brackets in the folder's own name for a pattern.)

    Args:
        folder: to list.
        suffixes: ends of the names to list, in lower case, such as ".json"; all by default.
    """
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if not is_leftover(path.name))
    return sorted(path for path in found if not suffixes or path.name.lower().endswith(suffixes))


def read_text(path: epath.Path) -> str:
    """A text file in UTF-8, or in the encoding that its byte order mark names.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is something else.
    """
    content = path.read_bytes()
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    return content.decode(encoding)


@contextmanager
def replacing(path: epath.PathLike) -> Iterator[epath.Path]:
    """Yields the path to write a file to, which then takes the place of `path`.

    Whoever is killed meanwhile leaves the old file, or none, but never half of one. An object in a bucket is
    written as a whole anyway.
    """
    path = epath.Path(path)
    if "://" in str(path):
        yield path
        return
    beside = path.with_name(f".{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Writes a file as a whole (see `replacing`)."""
    with replacing(path) as beside:
        beside.write_bytes(content)


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes a text file in UTF-8 as a whole (see `replacing`)."""
    write_bytes(path, text.encode())
