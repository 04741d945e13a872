"""Collects problems in raw data. Each cause is reported once, and everything else is used."""

import collections
from collections.abc import Iterable

from genmask_jax.utils.errors import one_line


class Problems:
    """Messages about what is left out, and notes about what is kept.

    Equal messages are counted and shown once, each in one line.
    """

    def __init__(self) -> None:
        self._left_out: collections.Counter[str] = collections.Counter()
        self._notes: collections.Counter[str] = collections.Counter()

    def add(self, message: str) -> None:
        """Reports something that is left out."""
        self._left_out[one_line(message)] += 1

    def extend(self, messages: Iterable[str]) -> None:
        """Adds several messages."""
        self._left_out.update(map(one_line, messages))

    def note(self, message: str) -> None:
        """Reports something unusual that is kept."""
        self._notes[one_line(message)] += 1

    @property
    def left_out(self) -> list[str]:
        """The messages in order, with the count of those added more than once."""
        return _lines(self._left_out)

    @property
    def notes(self) -> list[str]:
        """The notes, in the same form."""
        return _lines(self._notes)


def _lines(counts: collections.Counter[str]) -> list[str]:
    return [f"{message} ({n:,} times)" if n > 1 else message for message, n in counts.items()]
