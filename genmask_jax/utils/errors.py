"""UserError, the exception for errors that the user can fix, and its subclasses."""

import contextlib
import errno
import os
import re
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

MAX_LENGTH = 3000
"""Largest number of characters of a message; more are cut out before its end."""
UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that control a terminal or the direction of text, and halves of surrogate pairs."""


class UserError(Exception):
    """Bad input. The message is one line that names the file, field, flag or argument, and the fix.

    Commands print the line and exit with status 1, without a traceback. The message may quote any data: it is
    made one line (`one_line`).
    """

    def __init__(self, message: str):
        super().__init__(one_line(message))


class ArgumentError(UserError):
    """An invalid argument of a Python function: "seed=-1 must be a whole number, 0 or more".

    Args:
        argument: the argument's name. Commands replace it by the name of their flag (`cli.guard`).
        complaint: the rest of the message, appended to the name.
    """

    def __init__(self, argument: str, complaint: str):
        super().__init__(f"{argument}{complaint}")
        self.argument, self.complaint = argument, complaint

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.argument, self.complaint)


class UnknownWordWarning(UserWarning):
    """A phrase or prompt has words that the model was not trained on, so the result is unreliable."""


class DamagedError(UserError):
    """Stored data or parameters cannot be read."""


class StorageError(UserError):
    """A file cannot be read or written, because of the storage and not of its content."""


class Stopped(SystemExit):
    """Exits after a stop request when there is nothing to save, even if a thread is still compiling."""


def one_line(text: str) -> str:
    """A text in one line of at most MAX_LENGTH characters, with escapes for unprintable ones."""
    text = UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], " ".join(text.splitlines()))
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 605]} ... {text[-600:]}"


def short_repr(value: Any) -> str:
    """A value for an error message, in one line of at most 60 characters."""
    text = " ".join(_short.repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def short_text(value: Any) -> str:
    """A text as it is, or another value as `short_repr` writes it; at most 60 characters."""
    return value[:60] if isinstance(value, str) else short_repr(value)


_short = reprlib.Repr()  # deep and large values, and those that contain themselves, are not written out
_short.maxstring = _short.maxother = _short.maxlong = 60
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = 10


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


AGAIN = "then run the command again (trainings with --resume)"
DISK_FIXES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "delete files or ask for a larger quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "make the disk writable",
    errno.ESTALE: "mount the network folder again",
    errno.EIO: "check the disk",
}
"""What to do about the errors that only a disk or a network folder causes, by number."""
READ_FIXES = {
    errno.EACCES: "change the permissions",
    errno.EPERM: "change the permissions",
    errno.ESTALE: DISK_FIXES[errno.ESTALE],
    errno.ENOTCONN: "check the network folder",
    errno.ETIMEDOUT: "check the network folder",
}
"""The same for errors of reading that say nothing about the content of a file."""
WRITE_FIXES = {
    **DISK_FIXES,
    **READ_FIXES,
    errno.ENOENT: "its folder was deleted: restore it",
    errno.ENOTDIR: "its folder was deleted: restore it",
}
"""The same for errors of writing."""


def describe_storage_error(
    error: BaseException | None, path: Any = None, fixes: Mapping[int, str] = DISK_FIXES
) -> str:
    """One line about an error of the storage: path, cause and fix; "" if the error has another cause.

    Args:
        error: an exception; also the exceptions that caused it are considered. Libraries in C++ and Rust
            raise exceptions of their own, with the system's text in the message.
        path: the file or folder; by default, the one that the exception names.
        fixes: what to do about each error of the system, by number. Others are not described.
    """
    for cause in _causes(error):
        for number, fix in fixes.items():
            text = os.strerror(number)
            if getattr(cause, "errno", None) == number or text in str(cause):
                name = path or getattr(cause, "filename", None)
                return f"{f'{name}: {text}' if name else first_line(cause)}; {fix}, {AGAIN}"
    return ""


@contextlib.contextmanager
def reading(what: str, fix: str) -> Iterator[None]:
    """Converts the exceptions of libraries that read files into DamagedError.

    Args:
        what: the file's name in the message.
        fix: what the user can do about it.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # libraries raise ValueError, RuntimeError, protobuf's errors and others
        need_accessible(what, error)
        raise DamagedError(f"{what} is incomplete or damaged ({first_line(error)}); {fix}") from error


def need_accessible(path: Any, error: Exception) -> None:
    """Raises another exception if a file could not be read for another reason than its content.

    Raises:
        StorageError: the storage failed.
        BaseException: a stop, or a lack of memory, if it caused `error`. Orbax converts them to Exception.
    """
    for cause in _causes(error):
        if isinstance(cause, (KeyboardInterrupt, SystemExit, MemoryError)) or _is_of_jax(cause):
            raise cause
    problem = describe_storage_error(error, path, READ_FIXES)
    if problem:
        raise StorageError(problem) from error


def describe_memory_error(error: BaseException) -> str:
    """One line about memory that is full, of the machine or of a device; "" for other errors."""
    for cause in _causes(error):
        if isinstance(cause, MemoryError):
            return "the memory of this machine is full; use a smaller model or batch, or fewer workers"
        if _is_of_jax(cause) and "RESOURCE_EXHAUSTED" in str(cause):
            return (
                f"the memory of a device is full ({first_line(cause)}); end other processes that use it, or "
                "use a smaller batch; in training, more config.mesh.fsdp or config.model.remat save memory"
            )
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what caused it, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def _is_of_jax(error: BaseException) -> bool:
    """Whether JAX's runtime failed: a device, its memory, or another process. Files are not read by it."""
    from jax.errors import JaxRuntimeError

    return isinstance(error, JaxRuntimeError)
