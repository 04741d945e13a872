"""Names of classes: their phrases, and which classes are ignored or background."""

import re
from typing import Any, TypeGuard

GENERIC_WORDS = {
    *("class", "classes", "area", "areas", "region", "regions", "zone", "zones"),
    *("label", "labels"),
} | {*("pixel", "pixels", "object", "objects", "the")}
"""Words without an effect: an "ignored region" is ignored."""
IGNORED = {
    *("ignore", "ignored", "void", "voids", "dontcare", "donotcare", "unlabelled", "unlabeled", "unlabel"),
    *("unlabled", "nolabel", "notlabelled", "notlabeled", "unannotated", "notannotated", "unclassified"),
    *("undefined", "unspecified", "unknown", "invalid", "nodata", "null", "nan", "n/a", "~"),
    *("toignore", "tobeignored", "voidborder", "nonlabelled", "nonlabeled", "outofroi"),
}
"""Classes whose pixels are ignored, in lower case, without spaces and punctuation."""
BACKGROUND = {"background", "backgrounds", "bg", "bkg", "bkgd", "bgd", "none", "noobject", "noobjects"}
"""Names of the background: pixels without a class."""


def phrase(name: str) -> str:
    """The phrase for a class, in every format: "traffic light" for "Traffic_Light"."""
    return " ".join(name.replace("_", " ").split()).lower()


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a value is a text that can be shown and stored: not blank, and valid Unicode."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold
        return False
    return True


def is_ignored(name: str) -> bool:
    """Whether pixels of a class with this name are ignored: `__Ignore__`, "void class"."""
    return bool(_forms(name) & IGNORED)


def is_background(name: str) -> bool:
    """Whether a class with this name is the background: `_background_`, "BG"."""
    return bool(_forms(name) & BACKGROUND)


def is_class(name: str) -> bool:
    """Whether a class with this name is neither ignored nor background."""
    return not is_ignored(name) and not is_background(name)


def _forms(name: str) -> set[str]:
    """The name, and its letters with and without generic words."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"['’]", "", name.lower()))
    return {
        name.strip().lower(),
        "".join(words),
        "".join(word for word in words if word not in GENERIC_WORDS),
    }
