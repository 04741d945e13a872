"""What the names of classes say: how a class is asked for, and which classes nobody asks for."""

import re

GENERIC = {
    *("class", "classes", "area", "areas", "region", "regions", "zone", "zones"),
    *("label", "labels"),
} | {*("pixel", "pixels", "object", "objects", "the")}
"""Words that change nothing: an "ignored region" is ignored."""
IGNORED = {
    *("ignore", "ignored", "void", "voids", "dontcare", "donotcare", "unlabelled", "unlabeled", "unlabel"),
    *("unlabled", "nolabel", "notlabelled", "notlabeled", "unannotated", "notannotated", "unclassified"),
    *("undefined", "unspecified", "unknown", "invalid", "nodata", "null", "nan", "n/a", "~"),
    *("toignore", "tobeignored", "voidborder", "nonlabelled", "nonlabeled", "outofroi"),
}
"""Classes whose pixels do not count, in lower case and without what is between their words."""
BACKGROUND = {"background", "backgrounds", "bg", "bkg", "bkgd", "bgd", "none", "noobject", "noobjects"}
"""Classes that nobody asks for: their pixels belong to no other class."""


def phrase(name: str) -> str:
    """A class's name as it is asked for, the same in every format: "Traffic_Light" is "traffic light"."""
    return " ".join(name.replace("_", " ").split()).lower()


def is_ignored(name: str) -> bool:
    """Whether the pixels of a class of that name do not count: `__Ignore__`, "void class"."""
    return bool(_forms(name) & IGNORED)


def is_background(name: str) -> bool:
    """Whether a class of that name is what belongs to no other class: `_background_`, "BG"."""
    return bool(_forms(name) & BACKGROUND)


def is_asked(name: str) -> bool:
    """Whether a class of that name can be asked for."""
    return not is_ignored(name) and not is_background(name)


def _forms(name: str) -> set[str]:
    """The name, and its letters with and without its generic words."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"['’]", "", name.lower()))
    return {name.strip().lower(), "".join(words), "".join(word for word in words if word not in GENERIC)}
