"""UserError, the exception for errors that the user can fix, and its subclasses."""

import contextlib
from collections.abc import Iterator
from typing import Any


class UserError(Exception):
    """Bad input. The message is one line that names the file, field, flag or argument, and the fix.

    Commands print the line and exit with status 1, without a traceback.
    """


class ArgumentError(UserError):
    """A wrong argument of a Python function: "seed=-1 must be a whole number, 0 or more".

    Args:
        argument: the argument's name. Commands replace it by the name of their flag (`cli.guard`).
        complaint: the rest of the message, which directly follows the name.
    """

    def __init__(self, argument: str, complaint: str):
        super().__init__(f"{argument}{complaint}")
        self.argument, self.complaint = argument, complaint

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.argument, self.complaint)


class UnknownWordWarning(UserWarning):
    """A phrase or prompt has words that the model was not trained on, so that its result means little."""


class DamagedError(UserError):
    """Stored data or parameters cannot be read."""


class Stopped(SystemExit):
    """Ends a process on a stop request, when there is nothing to save; a thread may still be compiling."""


def shown(value: Any) -> str:
    """A value for an error message, in one line of at most 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def first_line(error: Exception) -> str:
    """The first line of an error's message, at most 200 characters."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


@contextlib.contextmanager
def reading(what: str, fix: str) -> Iterator[None]:
    """Turns any exception of a library that reads files into a DamagedError.

    Args:
        what: the file, as the message names it.
        fix: what the user can do.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # libraries raise ValueError, RuntimeError, errors of protobuf and others
        raise DamagedError(f"{what} is incomplete or damaged ({first_line(error)}); {fix}") from error
