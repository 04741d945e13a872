"""The checks of what users of the library pass; errors name the argument (`ArgumentError`)."""

import operator
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from genmask_jax.config.ranges import MAX_NOISES
from genmask_jax.instruction.base import TextTruncator, unknown_words
from genmask_jax.utils.errors import ArgumentError, UnknownWordWarning, short_repr

MAX_SEED = 2**32 - 1


def read_texts(argument: str, value: Any, example: str) -> list[str]:
    """A text, or several, as a list.

    Args:
        argument: its name.
        value: a text, or texts in a list or anything else that can be iterated over.
        example: of a text, for the error.

    Raises:
        ArgumentError: something is not a text, or empty, or there is nothing.
    """
    wanted = f"give a text such as {example!r}, or a list of texts"
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value.item()
    if isinstance(value, str):
        return [_read_text(argument, "", value, wanted)]
    if isinstance(value, (bytes, bytearray)) or not isinstance(value, Iterable):
        raise ArgumentError(argument, f"={short_repr(value)} is not a text; {wanted}")
    texts = [_read_text(argument, f"[{i}]", one, wanted) for i, one in enumerate(value)]
    if not texts:
        raise ArgumentError(argument, f": there is none; {wanted}")
    return texts


def _read_text(argument: str, place: str, value: Any, wanted: str) -> str:
    if not isinstance(value, str):
        raise ArgumentError(argument, f"{place}={short_repr(value)} is not a text; {wanted}")
    if not value.strip():
        raise ArgumentError(argument, f"{place}={str(value)!r} is empty; {wanted}")
    return str(value)  # of numpy, too


def read_integer(argument: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number of any library, from `least` to `most`. Raises ArgumentError."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        wanted = f"from {least} to {most}" if most is not None else f"from {least} on"
        raise ArgumentError(argument, f"={short_repr(value)} must be a whole number {wanted}")
    return number


def read_noises(value: Any) -> int:
    """A number of noises whose masks are averaged. Raises ArgumentError."""
    return read_integer("noises", value, 1, MAX_NOISES)


def read_seed(value: Any, argument: str = "seed") -> int:
    """A seed of noise, or the number of a noise. Raises ArgumentError."""
    return read_integer(argument, value, 0, MAX_SEED)


def warn_of_unknown_words(preparer: TextTruncator, texts: list[str]) -> tuple[tuple[str, ...], ...]:
    """The words of each text that the model cannot know, after an `UnknownWordWarning` if there are any.

    To be called by what the user calls, whose caller the warning names.
    """
    unknown = tuple(unknown_words(preparer, text) for text in texts)
    if any(unknown):
        warnings.warn(describe_unknown(texts, unknown), UnknownWordWarning, stacklevel=3)
    return unknown


def describe_unknown(texts: Sequence[str], unknown: Sequence[Sequence[str]]) -> str:
    """One line about the words that the model cannot know, of at least one text."""
    words = dict.fromkeys(word for some in unknown for word in some)
    asked = [text for text, some in zip(texts, unknown, strict=True) if some]
    where = repr(str(asked[0])) if len(asked) == 1 else f"{len(asked)} of {len(texts)} texts"
    *most, last = (repr(str(word)) for word in words)
    named = f"words {', '.join(most)} and {last}" if most else f"word {last}"
    return f"the model was not trained on the {named}; what it makes of {where} means little"
