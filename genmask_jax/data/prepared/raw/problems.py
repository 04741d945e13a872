"""What is wrong with raw data, collected: each cause is reported once, and everything else is used."""

import collections
from collections.abc import Iterable


class Problems:
    """Messages about what was left out, and notes about what was kept; equal messages are counted."""

    def __init__(self) -> None:
        self._left_out: collections.Counter[str] = collections.Counter()
        self._notes: collections.Counter[str] = collections.Counter()

    def add(self, message: str) -> None:
        """Something is left out. A message that names its cause alone is said once for all that it costs."""
        self._left_out[message] += 1

    def extend(self, messages: Iterable[str]) -> None:
        self._left_out.update(messages)

    def note(self, message: str) -> None:
        """Something unusual is kept."""
        self._notes[message] += 1

    @property
    def left_out(self) -> list[str]:
        """The messages in order, with how often each was added if that was more than once."""
        return _lines(self._left_out)

    @property
    def notes(self) -> list[str]:
        """The same of what was kept."""
        return _lines(self._notes)


def _lines(counts: collections.Counter[str]) -> list[str]:
    return [f"{message} ({n:,} times)" if n > 1 else message for message, n in counts.items()]
