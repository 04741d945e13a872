"""Checks of the arguments that users of the library pass; errors name the argument (`ArgumentError`)."""

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
    """Returns a text, or several texts, as a list.

    Args:
        argument: the argument's name.
        value: a text, or an iterable of texts.
        example: an example text for the error message.

    Raises:
        ArgumentError: a value is not a text or is empty, or there are no texts.
    """
    fix = f"give a text such as {example!r}, or a list of texts"
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value.item()
    if isinstance(value, str):
        return [_read_text(argument, "", value, fix)]
    if isinstance(value, (bytes, bytearray)) or not isinstance(value, Iterable):
        raise ArgumentError(argument, f"={short_repr(value)} is not a text; {fix}")
    texts = [_read_text(argument, f"[{i}]", text, fix) for i, text in enumerate(value)]
    if not texts:
        raise ArgumentError(argument, f": there is none; {fix}")
    return texts


def _read_text(argument: str, index: str, value: Any, fix: str) -> str:
    if not isinstance(value, str):
        raise ArgumentError(argument, f"{index}={short_repr(value)} is not a text; {fix}")
    if not value.strip():
        raise ArgumentError(argument, f"{index}={str(value)!r} is empty; {fix}")
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        raise ArgumentError(argument, f"{index}={str(value)!r} is not valid Unicode; {fix}") from None
    return str(value)  # converts np.str_


def read_integer(argument: str, value: Any, minimum: int, maximum: int | None = None) -> int:
    """Returns an integer of any library as an int. Raises ArgumentError if it is out of range."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum or (maximum is not None and number > maximum):
        limits = f"from {minimum} to {maximum}" if maximum is not None else f"from {minimum} on"
        raise ArgumentError(argument, f"={short_repr(value)} must be a whole number {limits}")
    return number


def read_noises(value: Any) -> int:
    """Checks the number of noises whose masks are averaged. Raises ArgumentError."""
    return read_integer("noises", value, 1, MAX_NOISES)


def read_seed(value: Any, argument: str = "seed") -> int:
    """Checks a seed, or the index of a noise. Raises ArgumentError."""
    return read_integer(argument, value, 0, MAX_SEED)


def warn_of_unknown_words(preparer: TextTruncator, texts: list[str]) -> tuple[tuple[str, ...], ...]:
    """Returns the words of each text that the model was not trained on; warns if there are any.

    Call this directly from a public method: the `UnknownWordWarning` points to the caller of that method.
    """
    unknown = tuple(unknown_words(preparer, text) for text in texts)
    if any(unknown):
        warnings.warn(describe_unknown_words(texts, unknown), UnknownWordWarning, stacklevel=3)
    return unknown


def describe_unknown_words(texts: Sequence[str], unknown: Sequence[Sequence[str]]) -> str:
    """Returns one line about the unknown words of each text; at least one text has some."""
    unique = dict.fromkeys(word for words in unknown for word in words)
    affected = [text for text, words in zip(texts, unknown, strict=True) if words]
    which = repr(str(affected[0])) if len(affected) == 1 else f"{len(affected)} of {len(texts)} texts"
    *others, last = (repr(str(word)) for word in unique)
    listed = f"words {', '.join(others)} and {last}" if others else f"word {last}"
    return f"the model was not trained on the {listed}; the result for {which} is unreliable"
