"""Makes the Stamps data set: photographic cut-outs with exact mattes, and photographs to put them on.

Both come from Debian packages that anyone may fetch; nothing of them is part of this project. A prepared
directory holds objects/*.png (RGBA), grounds/*.jpg, index.json and LICENSES.txt.
"""

import colorsys
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from genmask_jax.errors import UserError

PACKAGES = {
    "tuxpaint-stamps-default": "GPL-2",
    "plasma-workspace-wallpapers": "GPL-2+",
    "mate-backgrounds": "GPL-2+ and CC-BY-SA-4.0",
    "lomiri-wallpapers-16.04": "CC-BY-4.0, CC-BY-SA-3.0 and CC-BY-SA-4.0",
    "lomiri-wallpapers-20.04": "CC-BY-4.0, CC-BY-SA-3.0 and CC-BY-SA-4.0",
}
STAMPS = "usr/share/tuxpaint/stamps"
SKIPPED_FOLDERS = {"symbols", "cartoon", "flags", "naturalforces", "newyears"}
MIN_SIDE, OBJECT_SIDE, GROUND_SIDE = 128, 256, 640
# Photographs that show none of the objects, by split; chosen by looking at all of them.
GROUNDS: dict[str, tuple[str, ...]] = {
    "train": (
        "backgrounds/aitzgorri_by_Aitzol_Berasategi.jpg",
        "backgrounds/life_by_Aitzol_Berasategi.jpg",
        "backgrounds/sunset_by_Aitzol_Berasategi.jpg",
        "backgrounds/analogpattern_by_Peter_Nerlich.jpg",
        "backgrounds/Bridge_by_Sander_Klootwijk.jpg",
        "backgrounds/mate/nature/Aqua.jpg",
        "backgrounds/mate/nature/Blinds.jpg",
        "backgrounds/mate/nature/Dune.jpg",
        "backgrounds/mate/nature/Storm.jpg",
        "backgrounds/mate/nature/Wood.jpg",
        "wallpapers/ColdRipple/contents/images/2560x1600.jpg",
        "wallpapers/DarkestHour/contents/images/2560x1600.jpg",
        "wallpapers/OneStandsOut/contents/images/2560x1600.jpg",
        "wallpapers/Grey/contents/images/2560x1600.jpg",
        "wallpapers/Volna/contents/images/5120x2880.jpg",
    ),
    "val": (
        "backgrounds/Infinite-Sea_by_Aury88.jpg",
        "wallpapers/BytheWater/contents/images/2560x1600.jpg",
    ),
    "test": (
        "backgrounds/picosdeeuropa_by_Aitzol_Berasategi.jpg",
        "backgrounds/mate/nature/GreenMeadow.jpg",
        "backgrounds/mate/nature/RainDrops.jpg",
        "wallpapers/Path/contents/images/2560x1600.jpg",
        "wallpapers/summer_1am/contents/images/2560x1600.jpg",
    ),
}
HUES = {"red": 0, "orange": 28, "yellow": 52, "green": 115, "blue": 220, "purple": 285, "pink": 335}


def prepare(out: pathlib.Path, raw: pathlib.Path | None) -> dict[str, Any]:
    """Fetches or finds the packages and writes the data set; returns its index.

    Args:
        out: the directory to make; one that is complete already is left as it is.
        raw: where the .deb files are, or are put; OUT-packages when None.

    Raises:
        UserError: no Debian tools, a package that cannot be had, or `out` holds something else.
    """
    if (out / "index.json").exists():
        print(f"{out} is prepared already; delete it to make it anew")
        return json.loads((out / "index.json").read_text())
    if out.exists() and any(out.iterdir()):
        raise UserError(f"--out={out} is not empty and no Stamps data set; give a new directory")
    root = find_packages(raw or out.with_name(out.name + "-packages"))
    out.parent.mkdir(parents=True, exist_ok=True)
    # Made aside and renamed at the end: an interrupted run leaves nothing half done.
    work = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        index = {"objects": make_objects(root, work), "grounds": make_grounds(root, work)}
        (work / "index.json").write_text(json.dumps(index, indent=1, ensure_ascii=False))
        lines = [
            f"{name}: {licence} (see the package's copyright file)" for name, licence in PACKAGES.items()
        ]
        (work / "LICENSES.txt").write_text("\n".join(lines) + "\n")
        if out.exists():
            out.rmdir()
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return index


def find_packages(raw: pathlib.Path) -> pathlib.Path:
    """The root of the packages' usr/share: "/" when they are installed, else unpacked under `raw`."""
    if _complete(pathlib.Path("/")):
        return pathlib.Path("/")
    unpacked = raw / "unpacked"
    if _complete(unpacked):
        return unpacked
    if shutil.which("dpkg-deb") is None:
        raise UserError(
            "stamps: there is no dpkg-deb here; run this on Debian or Ubuntu, or copy --out from one"
        )
    raw.mkdir(parents=True, exist_ok=True)
    missing = [name for name in PACKAGES if not list(raw.glob(f"{name}_*.deb"))]
    if missing and shutil.which("apt-get") is None:
        raise UserError(
            f"stamps: there is no apt-get here; put the .deb files of {missing[0]} etc. in --raw={raw}"
        )
    for name in tqdm(missing, desc="fetching packages", unit="package"):
        done = subprocess.run(["apt-get", "download", name], cwd=raw, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(
                f"stamps: apt-get could not fetch {name} ({reason}); run apt-get update, or use --raw"
            )
    for name in tqdm(PACKAGES, desc="unpacking", unit="package"):
        deb = sorted(raw.glob(f"{name}_*.deb"))[-1]
        done = subprocess.run(["dpkg-deb", "-x", deb, unpacked], capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"stamps: {deb} is damaged; delete it and run again")
    return unpacked


def _complete(root: pathlib.Path) -> bool:
    grounds = (path for paths in GROUNDS.values() for path in paths)
    return (root / STAMPS).is_dir() and all((root / "usr/share" / path).exists() for path in grounds)


def make_objects(root: pathlib.Path, out: pathlib.Path) -> list[dict[str, Any]]:
    """Writes the cut-outs, cropped to their mattes; a file that cannot be used is named and left out."""
    (out / "objects").mkdir()
    objects, skipped = [], []
    for path in tqdm(sorted((root / STAMPS).rglob("*.png")), desc="cut-outs", unit="file"):
        parts = path.relative_to(root / STAMPS).with_suffix("").parts
        if SKIPPED_FOLDERS & set(parts) or path.stem.endswith(("_mirror", "_flip")):
            continue
        try:
            picture = Image.open(path).convert("RGBA")
        except (OSError, ValueError, SyntaxError) as error:
            skipped.append(f"{path.name}: {error}")
            continue
        cut = cut_out(picture)
        if cut is None:
            continue
        descriptions = read_descriptions(path.with_suffix(".txt"))
        name = noun_phrase(descriptions.get("en", "")) or from_file_name(path.stem)
        file = f"objects/{'-'.join(parts)}.png"
        cut.save(out / file)
        objects.append(
            {
                "name": name,
                "file": file,
                "category": parts[0],
                "colour": colour_word(cut),
                "seen": is_seen(name),
                "descriptions": descriptions,
            }
        )
    for line in skipped:
        print(f"skipped {line}")
    if not objects:
        raise UserError(f"stamps: no usable cut-out under {root / STAMPS}")
    return objects


def make_grounds(root: pathlib.Path, out: pathlib.Path) -> list[dict[str, Any]]:
    """Writes the photographs, reduced."""
    (out / "grounds").mkdir()
    grounds = []
    for split, paths in GROUNDS.items():
        for path in paths:
            picture = Image.open(root / "usr/share" / path).convert("RGB")
            picture.thumbnail((GROUND_SIDE, GROUND_SIDE))
            file = f"grounds/{re.sub(r'[^A-Za-z0-9]+', '-', path.rsplit('.', 1)[0])}.jpg"
            picture.save(out / file, quality=92)
            grounds.append({"file": file, "split": split, "source": path})
    return grounds


def write_licences(root: pathlib.Path, out: pathlib.Path) -> None:
    """LICENSES.txt: a line for each package, then the packages' own copyright files."""
    lines = [f"{name}: {licence}" for name, licence in PACKAGES.items()]
    for name in PACKAGES:
        path = root / "usr/share/doc" / name / "copyright"
        if path.exists():
            lines += ["", f"==== {name} ====", path.read_text(encoding="utf-8", errors="replace")]
    (out / "LICENSES.txt").write_text("\n".join(lines) + "\n")


def cut_out(picture: Image.Image) -> Image.Image | None:
    """The picture cropped to where it is opaque; None if it is small or has no matte to speak of."""
    alpha = np.asarray(picture)[..., 3]
    box = Image.fromarray((alpha > 127).astype(np.uint8)).getbbox()
    if box is None or max(box[2] - box[0], box[3] - box[1]) < MIN_SIDE * 0.75 or (alpha > 127).mean() > 0.98:
        return None
    if max(picture.size) < MIN_SIDE:
        return None
    picture = picture.crop(box)
    picture.thumbnail((OBJECT_SIDE, OBJECT_SIDE))
    return picture


def read_descriptions(path: pathlib.Path) -> dict[str, str]:
    """Language code to description; English is the first line, the others read `de.utf8=...`."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = {"en": lines[0].strip()} if lines else {}
    for line in lines[1:]:
        match = re.match(r"([\w@-]+)\.utf8=(.+)", line)
        if match:
            found[match[1]] = match[2].strip()
    return found


def noun_phrase(description: str) -> str | None:
    """ "An Adelaide Rosella." -> "adelaide rosella"; None for anecdotes."""
    text = re.sub(r"\(.*?\)|[“”\"'‘’]s?\b|[“”\"]", "", description.strip())
    match = re.match(r"(?:an?|the|our|some|two|another)\s+([\w -]+?)(?:\s*[.,!].*)?$", text, re.IGNORECASE)
    if match is None or len(match[1].split()) > 3:
        return None
    name = re.sub(r"^(male|very|old|lit|pair of|baby of a)\s+", "", match[1].lower().strip())
    return re.sub(r"^pair of ", "", name)


def from_file_name(stem: str) -> str:
    """ "Candy_cane_photo_1" -> "candy cane"."""
    words = re.sub(r"[\d_\W]+", " ", stem).lower().split()
    return " ".join(word for word in words if word not in ("photo", "t", "a", "outline") and len(word) > 1)


def colour_word(cut: Image.Image) -> str | None:
    """The colour of at least 60 % of an object, or None."""
    small = np.asarray(cut.resize((32, 32)))
    pixels = small[small[..., 3] > 127][:, :3] / 255
    words = [_pixel_colour(*pixel) for pixel in pixels]
    for word in set(words) - {"grey"}:
        if words.count(word) >= 0.6 * len(words):
            return word
    return None


def _pixel_colour(red: float, green: float, blue: float) -> str:
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < 0.2:
        return "black"
    if saturation < 0.25:
        return "white" if value > 0.8 else "grey"
    degrees = hue * 360
    word = min(HUES, key=lambda name: min(abs(degrees - HUES[name]), 360 - abs(degrees - HUES[name])))
    return "brown" if word in ("orange", "red", "yellow") and value * saturation < 0.45 else word


def is_seen(name: str) -> bool:
    """Nine names of ten; by the name, so that two pictures of one thing are on one side."""
    return hashlib.sha256(name.encode()).digest()[0] % 10 != 0
