"""Mirrors a text with its image, by exchanging left and right, if the result is certainly correct.

A text is mirrored only if all its words are known (from `english.py` or added by the user), and if each left
and right in it is a place or a side: "on the left", "the far right car", "his left hand", "left of the bus".
Other texts ("right behind", "what is left", "left handed", "das linke Auto", "lft", "number 7") and their
images are not mirrored.
"""

import collections
import functools
import re
from collections.abc import Iterable, Sequence

from genmask_jax.data.english import ADJECTIVES, NOUNS, base_form, word_set

_PAIRS = (
    ("left", "right"),
    ("leftmost", "rightmost"),
    ("leftward", "rightward"),
    ("leftwards", "rightwards"),
)
SWAPS = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
"""Words that are exchanged."""
ORDINALS = word_set("first second third fourth fifth sixth seventh eighth ninth tenth last")
"""They need a side to count from: the second zebra in a mirrored row is a different one."""
_FROM_A_SIDE = re.compile(r"\bfrom (the )?(far )?(left|right|top|bottom|front|back)\b")
_PLACE_MODIFIERS = word_set(
    "far top bottom upper lower front back rear middle center centre mid extreme very"
)
"""Before a side, these words make it a place: "far left", "the bottom right car"."""
_DETERMINERS = word_set("the his her its their your my our whose")
_SIDE_PREPOSITIONS = word_set("on to at from toward towards")
_PREPOSITIONS = _SIDE_PREPOSITIONS | word_set("in of by near along with and")
_DIRECTION_VERBS = word_set("facing looking pointing leaning heading turned tilted")
_SIDE_NOUNS = word_set("side corner edge half border margin most")
"""Before these words, left and right are always places."""
_UNSIDED_NOUNS = word_set("turn angle triangle field way size colour color shape spot kind type order place")
"""Before these nouns, "right" may mean correct, or a mirror image changes the noun."""
_AMBIGUOUS_BEFORE = word_set("""
behind in above below under beside next at on near by up down here there across after before over out
between off against through where when now away along inside outside alone
""")
"""Before these words, "right" may mean exactly, and "left" may be a verb."""
_BEFORE_LEFT_OF = _DETERMINERS | word_set("just directly immediately slightly far bottom top")
"""After other words, "left of" may mean the remains of something."""
_ATTRIBUTIVE = ADJECTIVES - word_set("open closed clean dirty dry wet broken bare empty")


@functools.lru_cache(maxsize=65536)
def unmirrorable_words(text: str, extra_words: frozenset[str] = frozenset()) -> str | None:
    """The first word or words that prevent mirroring a text.

    Args:
        text: a text in any language.
        extra_words: words in lower case that stay true in a mirror image, besides those of `english.py`.

    Returns:
        The words, or None if the text can be mirrored.
    """
    unknown = unknown_word(text, extra_words)
    if unknown is not None:
        return unknown
    clauses = _clauses(text)
    ordinal = next(filter(_is_ordinal, words(text)), None)
    if ordinal and not any(_FROM_A_SIDE.search(" ".join(clause)) for clause in clauses):
        return ordinal
    for clause in clauses:
        for i, word in enumerate(clause):
            parts = clause[:i], clause[i + 1 :]
            if word in ("left", "right") and not _is_side(word, *parts, alone=len(clauses) == 1):
                return " ".join(clause[max(0, i - 1) : i + 2])
    return None


def unknown_word(text: str, extra_words: frozenset[str] = frozenset()) -> str | None:
    """The first unknown word or character of a text; None if all are known."""
    symbol = re.search(r"[^\w\s'’,.;:!?()/&-]", text)
    if symbol:
        return symbol[0]
    for word in words(text):
        if word in SWAPS or word in extra_words or _is_ordinal(word):
            continue
        if base_form(word) is None:
            return word
    return None


def mirror(text: str) -> str:
    """The text with left and right exchanged, in the same case. `unmirrorable_words` must be None for it."""
    return re.sub(r"[A-Za-z]+", lambda match: _swap(match[0]), text)


def report(texts: Sequence[str], extra_words: Iterable[str] = ()) -> str:
    """A message with the number of texts that cannot be mirrored and the most frequent reasons."""
    reasons = collections.Counter(unmirrorable_words(text, frozenset(extra_words)) for text in texts)
    count = len(texts) - reasons.pop(None, 0)
    if not count and len(texts) == 1:
        return "the only text can be mirrored with its image"
    if not count:
        return f"all {len(texts)} texts can be mirrored with their images"
    examples = ", ".join(f"{reason!r} ({number})" for reason, number in reasons.most_common(8))
    return (
        f"{count} of {len(texts)} texts cannot be mirrored with their images, because of {examples}"
        f"{' and others' if len(reasons) > 8 else ''}; add words that stay true in a mirror image to "
        "config.data.augment.flip_words"
    )


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return [word for clause in _clauses(text) for word in clause]


def _clauses(text: str) -> list[list[str]]:
    """The words of each clause, in lower case; hyphens, underscores and slashes separate words."""
    text = re.sub(r"[-_/&\s]+", " ", text.lower().replace("’", "'"))
    clauses = [re.findall(r"\w+(?:'\w+)*'?", clause) for clause in re.split(r"[,.;:!?()]", text)]
    return [clause for clause in clauses if clause]


def _is_ordinal(word: str) -> bool:
    return word in ORDINALS or re.fullmatch(r"\d+(st|nd|rd|th)", word) is not None


def _is_side(side: str, before: list[str], after: list[str], *, alone: bool) -> bool:
    """Whether "left" or "right" is certainly a place or a side.

    Args:
        side: "left" or "right".
        before, after: the words around it in its clause.
        alone: whether the clause is the whole text.
    """
    following = after[0] if after else ""
    # "left side", "right hand side", but not "right side up", "left half eaten".
    if following in _SIDE_NOUNS or after[:2] == ["hand", "side"]:
        return after[:2] not in (["side", "up"], ["side", "by"], ["half", "eaten"], ["half", "empty"])
    if following == "of":
        return side == "right" or not before or before[-1] in _BEFORE_LEFT_OF
    if following and (base_form(following) in _UNSIDED_NOUNS or following in ("handed", "footed", "over")):
        return False
    rest = list(before)
    while rest and rest[-1] in _PLACE_MODIFIERS:
        rest.pop()
    modified, last = len(rest) < len(before), rest[-1] if rest else ""
    # "on the left", "in his right hand"
    if last in _DETERMINERS and len(rest) > 1 and rest[-2] in _PREPOSITIONS:
        return following not in _AMBIGUOUS_BEFORE or rest[-2] in _SIDE_PREPOSITIONS
    noun_follows = following and base_form(following, NOUNS | _ATTRIBUTIVE)
    # "the left car"
    if noun_follows and (not last or last in _DETERMINERS or last in ("a", "with") or _is_owner(last)):
        return True
    if modified or last in _SIDE_PREPOSITIONS:  # "far right", "on left"
        return following not in _AMBIGUOUS_BEFORE
    if last in _DIRECTION_VERBS:  # "facing left"
        return following in ("", "and", "with", "wearing")
    return alone and not following and last in ("", "the") and len(rest) < 2  # "left", "the right"


def _is_owner(word: str) -> bool:
    """Whether a word is the possessive of a noun, as in "the man's left hand"."""
    return word.endswith(("'s", "s'")) and base_form(word, NOUNS) is not None


def _swap(word: str) -> str:
    swapped = SWAPS.get(word.lower())
    if swapped is None:
        return word
    if word.isupper():
        return swapped.upper()
    return swapped.capitalize() if word[0].isupper() else swapped
