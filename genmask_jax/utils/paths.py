"""Paths given by users, folders and text files."""

import codecs
import contextlib
import itertools
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

from etils import epath

from genmask_jax.utils.errors import (
    AGAIN,
    WRITE_FIXES,
    ArgumentError,
    StorageError,
    UserError,
    describe_storage_error,
    first_line,
)

LEFTOVERS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"}
"""Files and folders that operating systems create, besides hidden ones; in lower case."""
ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is a prefix of it
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by byte order mark."""
URL = re.compile(r"(?!(?:gs|s3|az|hf)://)[a-z][a-z0-9+.-]*://|(?:https?|ftp):/|data:", re.IGNORECASE)
"""Matches URLs, except those that `epath` reads. `pathlib` reduces `//` to `/`."""
DOWNLOAD = "download the file and give its path"
REWRITE_SECONDS = 60.0
"""Shortest time between two writes of an object that grows."""
IMPORT = "launch/import_weights.py --from=hf:OWNER/NAME imports public weights"


def expand(text: str) -> str:
    """Expands `~` and a leading `~/` to the home directory; returns other text unchanged."""
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text


def expand_flags(arguments: list[str]) -> list[str]:
    """Expands `--flag=~/path` in command-line arguments, because shells do not."""
    parts = (argument.partition("=") for argument in arguments)
    return [
        f"{flag}{equals}{expand(value) if flag.startswith('-') else value}" for flag, equals, value in parts
    ]


def to_path(path: Any, argument: str, instead: str = DOWNLOAD) -> epath.Path:
    """Converts the path argument of a function, and expands `~/`.

    Args:
        path: a string or path-like object.
        argument: name of the argument, for errors.
        instead: advice if the path is a URL.

    Raises:
        ArgumentError: `path` is not a path, or is a URL.
    """
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ArgumentError(argument, f"={path!r} is not a path")
    text = os.fspath(path)
    need_no_url(argument, text, instead)
    return epath.Path(expand(text))


def need_no_url(argument: str, value: str, instead: str = DOWNLOAD) -> None:
    """Raises ArgumentError if the value of an argument or flag is a URL."""
    if URL.match(value):
        shown = value if len(value) <= 100 else f"{value[:100]}..."
        raise ArgumentError(argument, f"={shown}: URLs are not read; {instead}")


def is_object(path: epath.PathLike) -> bool:
    """Whether a path is in a bucket, such as gs://, and not in the file system."""
    return "://" in str(path)


def resolved(path: epath.PathLike) -> epath.Path:
    """The absolute path; objects in buckets have one. `epath` would make gs://a the local path ./gs:/a."""
    path = epath.Path(path)
    return path if is_object(path) else path.resolve()


def need_local(path: epath.PathLike, flag: str = "") -> None:
    """Raises UserError for a path in a bucket, where ArrayRecord and safetensors cannot open files.

    Args:
        path: the file or folder.
        flag: the flag or field that gives it, for the message.
    """
    if is_object(path):
        name = f"{flag}={path}" if flag else f"{path}"
        raise UserError(f"{name}: records and safetensors cannot be in a bucket; use a local folder")


def make_directory(path: epath.PathLike, flag: str) -> epath.Path:
    """Creates the directory given by a flag if it is missing. Raises UserError if that fails."""
    directory = to_path(path, flag)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag}={path} cannot be created: {error.strerror}") from error
    return directory


def need_makeable(path: epath.PathLike, flag: str) -> epath.Path:
    """Checks that the directory given by a flag exists or can be created; returns it.

    Raises:
        UserError: the path or a parent is a file, or the closest existing parent is not writable.
    """
    directory = to_path(path, flag)
    if is_object(directory):
        return directory
    existing = next(folder for folder in (directory, *directory.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise UserError(f"{flag}={path} cannot be created: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{flag}={path} cannot be created: {existing} cannot be written to")
    return directory


def need_storable(path: epath.PathLike) -> None:
    """Raises UserError for paths with a `[`, in which Orbax silently writes checkpoints without arrays.

    Orbax finds its files with `glob`, which reads brackets as a pattern.
    """
    if "[" in str(resolved(path)):
        raise UserError(
            f"{path}: Orbax cannot keep arrays in a path with a '['; rename the folder, or use another"
        )


def is_leftover(name: str) -> bool:
    """Whether a file or folder is hidden or was created by an operating system: `._a.jpg`, `Thumbs.db`."""
    return name.startswith(".") or name.lower() in LEFTOVERS


def listed(folder: epath.Path, *suffixes: str) -> list[epath.Path]:
    """The files and folders in a folder, sorted by name; [] if the folder does not exist.

    Leaves out leftovers, pipes and devices. `glob` would read brackets in the folder's name as a pattern.

    Args:
        folder: the folder.
        suffixes: suffixes to list, in lower case, such as ".json"; all by default.
    """
    if not folder.is_dir():
        return []
    names = (name for name in _names_in(folder) if not is_leftover(name))
    return sorted(folder / name for name in names if not suffixes or name.lower().endswith(suffixes))


def _names_in(folder: epath.Path) -> list[str]:
    """The names in a folder, without pipes and devices."""
    if is_object(folder):
        return [path.name for path in folder.iterdir()]
    with os.scandir(folder) as entries:  # knows the kinds of files without opening them
        return [
            entry.name
            for entry in entries
            if entry.is_file() or entry.is_dir() or not os.path.exists(entry.path)
        ]


def unused(path: epath.Path) -> epath.Path:
    """The path if nothing is there, else the first of NAME_2, NAME_3 and so on where nothing is."""
    names = (path.with_name(f"{path.name}_{i}") for i in itertools.count(2))
    return next(one for one in itertools.chain([path], names) if not one.exists())


def is_inside(path: epath.PathLike, folder: epath.PathLike) -> bool:
    """Whether a path is below a folder by its name: `..` counts, links do not."""
    path, folder = (os.path.abspath(os.fspath(one)) for one in (path, folder))
    return os.path.commonpath([path, folder]) == folder


def is_file(path: epath.PathLike) -> bool:
    """Whether a path is a file, or a link to one; `epath.Path.is_file` is true for pipes and devices too."""
    return epath.Path(path).is_file() if is_object(path) else os.path.isfile(path)


def need_regular(path: epath.Path) -> None:
    """Raises OSError for pipes and devices, which may never end; a path that does not exist passes."""
    if path.exists() and not is_file(path) and not path.is_dir():
        raise OSError("it is a pipe or a device, not a file")


def parse_json(text: str | bytes) -> Any:
    """Parses JSON. Raises ValueError if it is invalid or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_text(path: epath.Path) -> str:
    """Reads a text file in UTF-8, or in the encoding of its byte order mark.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: the file has another encoding.
    """
    content = path.read_bytes()
    encoding = next((name for mark, name in ENCODINGS.items() if content.startswith(mark)), "utf-8")
    return content.decode(encoding)


@contextlib.contextmanager
def writing(path: epath.PathLike) -> Iterator[None]:
    """Converts the errors of full disks, quotas, network folders and buckets into StorageError.

    Args:
        path: the file or folder that is written, for the message.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # libraries raise ValueError, RuntimeError and others
        named = getattr(error, "filename", None)
        if named and not str(named).startswith(os.path.dirname(str(path))):
            raise  # another file, which was read
        problem = describe_storage_error(error, path, WRITE_FIXES)
        if problem:
            raise StorageError(problem) from error
        if is_object(path):
            raise StorageError(
                f"{path} cannot be written: {first_line(error)}; check the bucket, its permissions and the "
                f"network, {AGAIN}"
            ) from error
        raise


@contextlib.contextmanager
def replacing(path: epath.PathLike) -> Iterator[epath.Path]:
    """Yields a temporary path to write to, and renames it to `path` at the end.

    A killed process leaves the old file or none, never part of the new one. Objects in buckets are written
    directly, because buckets store only complete objects.

    Raises:
        StorageError: the disk is full, or the storage cannot be written to.
    """
    path = epath.Path(path)
    if is_object(path):
        with writing(path):
            yield path
        return
    temporary = path.with_name(f".{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with writing(path):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Writes a file atomically (see `replacing`)."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes a text file in UTF-8 atomically (see `replacing`)."""
    write_bytes(path, text.encode())


class Appender:
    """Appends to a file, which is created with the first content.

    Buckets have no append: there, the whole object is written, by `flush` and once in REWRITE_SECONDS.
    """

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path)
        self._content: bytearray | None = None
        """Content of an object; read with the first append."""
        self._written_at, self._waits = time.monotonic(), False

    def append(self, content: bytes) -> None:
        """Raises StorageError if the file cannot be written."""
        if not is_object(self.path):
            with writing(self.path), self.path.open("ab") as file:
                file.write(content)
            return
        with writing(self.path):
            if self._content is None:
                self._content = bytearray(self.path.read_bytes() if self.path.exists() else b"")
        self._content += content
        self._waits = True
        if time.monotonic() - self._written_at >= REWRITE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what waits. Raises StorageError if that fails."""
        if self._waits and self._content is not None:
            write_bytes(self.path, bytes(self._content))
            self._written_at, self._waits = time.monotonic(), False
