"""UserError, the exception for errors that the user can fix, and its subclasses."""

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any


class UserError(Exception):
    """Bad input. The message is one line that names the file, field, flag or argument, and the fix.

    Commands print the line and exit with status 1, without a traceback.
    """


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


class Stopped(SystemExit):
    """Exits after a stop request when there is nothing to save, even if a thread is still compiling."""


def short_repr(value: Any) -> str:
    """A value for an error message, in one line of at most 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def first_line(error: Exception) -> str:
    """The first line of an error's message, at most 200 characters."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


STORAGE_ADVICE = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EROFS: "make the disk writable",
    errno.ESTALE: "mount the network folder again",
    errno.EIO: "check the disk",
}
"""What to do about the errors of disks, by number."""


def describe_storage_error(error: BaseException) -> str:
    """One line about a full or failing disk; "" if the error has another cause.

    Libraries in C++ raise RuntimeError and others with the system's text.
    """
    for number, advice in STORAGE_ADVICE.items():
        text = os.strerror(number)
        if getattr(error, "errno", None) == number or text in str(error):
            name = getattr(error, "filename", None)
            problem = f"{name}: {text}" if name else str(error).partition("\n")[0][:200]
            return f"{problem}; {advice}, then run the command again (trainings with --resume)"
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
        raise DamagedError(f"{what} is incomplete or damaged ({first_line(error)}); {fix}") from error
