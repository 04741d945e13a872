"""Names and colours of cut-outs."""

import colorsys
import hashlib
import pathlib
import re

import numpy as np
from PIL import Image

HUES = {
    "red": 0, "orange": 28, "yellow": 54, "green": 110, "teal": 168, "blue": 218, "purple": 280, "pink": 330
}  # fmt: skip
"""Hues in degrees; a pixel has the name of the nearest hue."""


MIN_DOMINANT_SHARE = 0.55


def read_descriptions(path: pathlib.Path) -> dict[str, str]:
    """Descriptions by language code. The first line is English, the others have the form `de.utf8=...`."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    descriptions = {"en": lines[0].strip()} if lines else {}
    for line in lines[1:]:
        match = re.match(r"([\w@-]+)\.utf8=(.+)", line)
        if match:
            descriptions[match[1]] = match[2].strip()
    return descriptions


def noun_phrase(description: str) -> str | None:
    """ "An Adelaide Rosella." -> "adelaide rosella"; None for anecdotes."""
    text = re.sub(r"\(.*?\)|[“”\"]|(?<!\w)['‘’]|['‘’](?!\w)", "", description.strip()).replace("’", "'")
    match = re.match(r"(?:an?|the|our|some|two|another)\s+([\w' -]+?)\s*(?:[.,!].*)?$", text, re.IGNORECASE)
    if match is None:
        return None
    name = re.sub(r"^((very|old|lit|male|colorful) |(pair|plant|head|bunch) of )+", "", match[1].lower())
    return name if len(name.split()) <= 3 else None


def from_file_name(stem: str) -> str:
    """ "Candy_cane_photo_1" -> "candy cane"."""
    words = re.sub(r"[\d_\W]+", " ", stem).lower().split()
    return " ".join(word for word in words if word != "photo" and len(word) > 1) or stem.lower()


def colours(cut: Image.Image) -> tuple[str | None, dict[str, float]]:
    """The dominant colour of an object or None, and all colours with a share of at least 0.1.

    Teal and grey are counted, so that they are not taken for blue, green or white, but are never dominant.
    """
    pixels = np.asarray(cut.resize((32, 32)))
    words = [_pixel_colour(*pixel) for pixel in pixels[pixels[..., 3] > 127][:, :3] / 255]
    shares = {word: round(words.count(word) / len(words), 2) for word in sorted(set(words))}
    dominant = [
        word for word, share in shares.items() if share >= MIN_DOMINANT_SHARE and word not in ("teal", "grey")
    ]
    return (dominant[0] if dominant else None), {
        word: share for word, share in shares.items() if share >= 0.1
    }


def _pixel_colour(red: float, green: float, blue: float) -> str:
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < 0.2:
        return "black"
    if saturation < 0.2:
        return "white" if value > 0.75 else "grey"
    degrees = hue * 360
    word = min(HUES, key=lambda name: min(abs(degrees - HUES[name]), 360 - abs(degrees - HUES[name])))
    if word in ("red", "orange", "yellow") and (value < 0.5 or saturation < 0.5):
        return "brown" if value < 0.75 and (degrees < 45 or degrees > 345) else "grey"
    return word if saturation > 0.3 else "grey"


def is_seen(name: str) -> bool:
    """Whether training uses the object (about nine in ten); the same for all names with its last word."""
    return hashlib.sha256(name.split()[-1].encode()).digest()[2] % 10 != 0
