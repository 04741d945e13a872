"""The one exception for errors that the user can fix."""

import contextlib
from collections.abc import Iterator
from typing import Any


class UserError(Exception):
    """Bad input: its message is one line that names the file, field or flag and says how to fix it.

    The scripts in `launch/` print the line and exit with status 1, without a traceback.
    """


class ArgumentError(UserError):
    """A wrong argument of a function of the library: "seed=-1 must be a whole number, 0 or more".

    Args:
        argument: its name, which scripts replace by that of their flag (`cli.guard`).
        complaint: the rest of the message, right behind the name.
    """

    def __init__(self, argument: str, complaint: str):
        super().__init__(f"{argument}{complaint}")
        self.argument, self.complaint = argument, complaint

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.argument, self.complaint)


class UnknownWordWarning(UserWarning):
    """A phrase or prompt has words that are not in the texts that the model's vocabulary was learned from."""


class DamagedError(UserError):
    """Stored data or parameters that cannot be read."""


class Stopped(SystemExit):
    """Ends a process that was asked to stop and has nothing to lose; a thread may still compile."""


def shown(value: Any) -> str:
    """A value as it is shown in an error, in at most 60 characters of one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def first_line(error: Exception) -> str:
    """What an error says, in at most 200 characters of one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


@contextlib.contextmanager
def reading(what: str, mend: str) -> Iterator[None]:
    """Raises DamagedError for whatever a library raises of damaged files: `what` and `mend` say of which."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # they raise nothing narrower: ValueErrors, RuntimeErrors, errors of protobuf
        raise DamagedError(f"{what} is incomplete or damaged ({first_line(error)}); {mend}") from error
