"""Makes the Stamps data set: photographic cut-outs with exact mattes, and photographs to put them on.

Both come from Debian packages that anyone may fetch; nothing of them is part of this project. A prepared
directory holds objects/*.png (RGBA), grounds/*.jpg, index.json and LICENSES.txt.
"""

import colorsys
import fnmatch
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
from genmask_jax.inference.pictures import UNREADABLE

STAMPS = "tuxpaint-stamps-default"
PACKAGES = {
    STAMPS: "GPL-2",
    "plasma-workspace-wallpapers": "GPL-2+",
    "mate-backgrounds": "GPL-2+",
    "lomiri-wallpapers-16.04": "CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0",
    "lomiri-wallpapers-20.04": "CC-BY-SA-3.0",
}
"""What is fetched, and the licence of what has none of its own in the package's copyright file."""
MIN_SIDE, OBJECT_SIDE, GROUND_SIDE = 128, 256, 640
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
HUES = {
    "red": 0, "orange": 28, "yellow": 54, "green": 110, "teal": 168, "blue": 218, "purple": 280, "pink": 330
}  # fmt: skip
"""Degrees; a pixel has the nearest one's name."""
DOMINANT = 0.55

# What looking at all the pictures told: which to leave out, how to call some.

# Stamps that are drawings, no single thing, or copies of another stamp; patterns of folder/name.
DRAWINGS = """
symbols/* */cartoon/* *_mirror *_flip animals/insects/bee animals/mammals/hedgehog clothes/* food/pizza
medical/tooth military/final-roll-call naturalforces/* people/body_parts/* seasonal/christmas/Santa
seasonal/christmas/candy_cane seasonal/christmas/star seasonal/christmas/tree seasonal/easter/*
seasonal/halloween/jackolantern* seasonal/hanukkah/* seasonal/newyears/* space/planets/0_sun town/flags/*
town/monuments/inukshuk-outline vehicles/emergency/sedan_police
"""
# Wallpapers that are no grounds; patterns of folder/name. First what is no photograph, then those of flowers
# and animals (things that are named), then those of some other thing ("the red thing" could mean it).
NO_GROUNDS = """
abstract/* desktop/* */umang_by_* */Fossa_by_* */Painting-Colors_by_* images/Autumn images/Flow
images/Honeywave images/PastelHills images/SafeLanding images/Shell
*/Dragonfly_by_* */Kleiber_by_* */free_by_* */seeding_by_* nature/FreshFlower nature/Garden nature/LadyBird
nature/TwoWings nature/YellowFlower
*/Picture_0B_by_* */Picture_1A_by_* */Wine_by_* */friends_by_* */greentock_by_* images/ColorfulCups
images/EveningGlow
"""
# File name and noun phrase, where neither the description nor the file name is a good one.
NAMES = dict(
    line.split("=")
    for line in """
bluegroper=blue groper,lionfish=lionfish,gnu-baby=baby gnu,gnu-baby-stand=baby gnu,sheep_lamb=lamb,hen=hen
edward_bear=teddy bear,mountaingoat=mountain goat,avocado=avocado,cherimoya=cherimoya,grannysmith=rag doll
bradley=tank,infantry-stryker=armoured vehicle,f22_raptor=fighter jet,adeenia=desert rose,xanthia=moth
anemone_red=anemone,anthoorium=anthurium,appooppanthady=milkweed,bolsom=balsam,chemparathi=hibiscus
flower10=hibiscus,flower4=purple flowers,flower7=orange flowers,chuvanna_plastic_poo=plastic flower
eggplant=eggplant,lavender=lavender,cep-2=cep,birch=birch,rambutan=rambutan,German_Christmas_toy=wooden toy
grave-c=stone cross,moon_3qt=moon,apollo_lander=lunar lander,spacewalk=astronaut,voyager2=space probe
stop=stop sign,yield=yield sign,uk_post_box=post box,indycar=race car,chineseJunk=sailing ship,7spoke256=wheel
""".strip()
    .replace("\n", ",")
    .split(",")
)


def prepare(out: pathlib.Path, raw: pathlib.Path | None) -> dict[str, Any]:
    """Finds or fetches the packages and writes the data set; prints counts, skipped files and licences.

    Args:
        out: the directory to make; one that is complete already is left as it is.
        raw: where .deb files are looked for, or downloaded to; OUT/packages when None.

    Returns:
        The index: `objects` and `grounds`, a list of entries each.

    Raises:
        UserError: no Debian tools, a package that cannot be had, or `out` holds something else.
    """
    out = out.resolve()
    if (out / "index.json").exists():
        print(f"{out} is prepared already; nothing done (delete it to make it anew)")
        return json.loads((out / "index.json").read_text(encoding="utf-8"))
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - {"packages"}):
        raise UserError(
            f"--out={out} holds something else than a complete Stamps data set; give a new directory"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    # Made aside and renamed at the end: an interrupted run leaves nothing half done.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as aside:
        files = find_packages((raw or out / "packages").resolve(), pathlib.Path(aside) / "unpacked")
        work = pathlib.Path(aside) / "made"
        work.mkdir()
        skipped: list[str] = []
        index = {"objects": make_objects(files, work, skipped), "grounds": make_grounds(files, work, skipped)}
        _write_licences(files, work)
        (work / "index.json").write_text(json.dumps(index, indent=1, ensure_ascii=False), encoding="utf-8")
        if out.exists():
            for path in out.iterdir():
                path.rename(work / path.name)
            out.rmdir()
        work.rename(out)
    _report(out, index, skipped)
    return index


def _report(out: pathlib.Path, index: dict[str, Any], skipped: list[str]) -> None:
    for line in skipped:
        print(f"skipped {line}")
    seen = sum(entry["seen"] for entry in index["objects"])
    names = len({entry["name"] for entry in index["objects"]})
    splits = [entry["split"] for entry in index["grounds"]]
    print(
        f"{out}: {len(index['objects'])} objects with {names} names ({seen} for training, "
        f"{len(index['objects']) - seen} unseen); {len(splits)} grounds "
        f"({', '.join(f'{splits.count(split)} {split}' for split in SHARES)}); "
        f"{len(skipped)} broken files skipped"
    )
    licences = "; ".join(f"{name} {licence}" for name, licence in PACKAGES.items())
    print(f"licences: {licences}; more in {out / 'LICENSES.txt'}")


def find_packages(raw: pathlib.Path, unpacked: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The files of each package: as it is installed, else unpacked from a .deb in `raw` (or fetched there).

    Raises:
        UserError: there is no Debian tool, no network, no such package, or a damaged file.
    """
    files = {name: _installed(name) for name in PACKAGES}
    wanted = [name for name in PACKAGES if not files[name]]
    missing = [name for name in wanted if not list(raw.glob(f"{name}_*.deb"))]
    tools = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if ("dpkg-deb" in tools and wanted) or ("apt-get" in tools and missing):
        raise UserError(
            f"stamps: this machine has no {'/'.join(tools)}; copy the .deb files named {', '.join(wanted)} "
            f"into --raw={raw} and install dpkg-deb, or copy a directory that was prepared on Debian"
        )
    for name in tqdm(missing, desc="fetching packages", unit="package", disable=not missing):
        raw.mkdir(parents=True, exist_ok=True)
        complaint = f"apt-get cannot fetch {name}; run apt-get update, or put its .deb into --raw={raw}"
        _call(["apt-get", "download", name], raw, complaint)
    for name in tqdm(wanted, desc="unpacking", unit="package", disable=not wanted):
        deb, place = sorted(raw.glob(f"{name}_*.deb"))[-1], unpacked / name
        place.mkdir(parents=True)
        complaint = f"{deb} cannot be unpacked; delete it and run again"
        _call(["dpkg-deb", "-x", str(deb), str(place)], raw, complaint)
        files[name] = sorted(path for path in place.rglob("*") if path.is_file())
    return files


def _installed(name: str) -> list[pathlib.Path]:
    listed = pathlib.Path(f"/var/lib/dpkg/info/{name}.list")
    paths = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    return [path for path in map(pathlib.Path, paths) if path.is_file()]


def _call(command: list[str], folder: pathlib.Path, complaint: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"stamps: {complaint} ({reason})")


def make_objects(
    files: dict[str, list[pathlib.Path]], out: pathlib.Path, skipped: list[str]
) -> list[dict[str, Any]]:
    """Writes objects/*.png, cropped to their mattes; a file that cannot be read is added to `skipped`."""
    (out / "objects").mkdir()
    objects = []
    paths = [path for path in files[STAMPS] if path.suffix == ".png" and "stamps" in path.parts]
    for path in tqdm(paths, desc="cut-outs", unit="file"):
        parts = path.parts[path.parts.index("stamps") + 1 :]
        key = "/".join(parts).removesuffix(".png")
        if any(fnmatch.fnmatch(key, pattern) for pattern in DRAWINGS.split()):
            continue
        try:
            with Image.open(path) as picture:
                cut = cut_out(picture.convert("RGBA"))
        except UNREADABLE as error:
            skipped.append(f"{path.name}: {' '.join(str(error).split())}")
            continue
        if cut is None:
            continue
        descriptions = read_descriptions(path.with_suffix(".txt"))
        name = NAMES.get(path.stem) or noun_phrase(descriptions.get("en", "")) or from_file_name(path.stem)
        file = f"objects/{key.replace('/', '-')}.png"
        cut.save(out / file)
        colour, shares = colours(cut)
        objects.append(
            {
                "name": name,
                "file": file,
                "category": parts[0],
                "colour": colour,
                "colour_shares": shares,
                "seen": is_seen(name),
                "descriptions": descriptions,
            }
        )
    if not objects:
        raise UserError(f"stamps: the package {STAMPS} holds no usable cut-out; fetch it again")
    return objects


def make_grounds(
    files: dict[str, list[pathlib.Path]], out: pathlib.Path, skipped: list[str]
) -> list[dict[str, Any]]:
    """Writes grounds/*.jpg, reduced: one for each photograph, however many sizes of it there are.

    Splits: in the order of a hash of their names, the first 70 % train, then 10 % val, 20 % test.
    """
    (out / "grounds").mkdir()
    entries: dict[str, dict[str, Any]] = {}
    for package in list(PACKAGES)[1:]:
        terms = _own_licences(files[package])
        for key, path in sorted(_photographs(files[package]).items()):
            try:
                with Image.open(path) as picture:
                    picture.draft("RGB", (2 * GROUND_SIDE, 2 * GROUND_SIDE))  # a JPEG is decoded smaller
                    picture = picture.convert("RGB")
            except UNREADABLE as error:
                skipped.append(f"{path.name}: {' '.join(str(error).split())}")
                continue
            picture.thumbnail((GROUND_SIDE, GROUND_SIDE))
            file = f"grounds/{key}.jpg"
            picture.save(out / file, quality=92)
            licence = terms.get(path.name, PACKAGES[package])
            entries[key] = {"file": file, "package": package, "licence": licence}
    if len(entries) < len(SHARES):
        raise UserError(
            f"stamps: only {len(entries)} photographs to put things on; fetch {list(PACKAGES)[1]} again"
        )
    keys = sorted(entries, key=lambda key: hashlib.sha256(key.encode()).digest())
    last = max(1, round(SHARES["train"] * len(keys)))
    middle = last + max(1, round(SHARES["val"] * len(keys)))
    for split, chosen in zip(SHARES, (keys[:last], keys[last:middle], keys[middle:]), strict=True):
        for key in chosen:
            entries[key]["split"] = split
    return [entries[key] for key in sorted(entries)]


def _photographs(files: list[pathlib.Path]) -> dict[str, pathlib.Path]:
    """The largest file of each photograph that may be a ground, by its name (in Plasma, its folder's)."""
    found: dict[str, pathlib.Path] = {}
    for path in files:
        plasma = "contents" in path.parts
        if (
            path.suffix not in (".jpg", ".jpeg")
            or path.is_symlink()
            or (plasma and path.parent.name != "images")
        ):
            continue
        key = path.parents[2].name if plasma else re.sub(r"_\d+x\d+$", "", path.stem)
        if any(fnmatch.fnmatch(f"{path.parent.name}/{key}", pattern) for pattern in NO_GROUNDS.split()):
            continue
        if key not in found or path.stat().st_size > found[key].stat().st_size:
            found[key] = path
    return found


def _own_licences(files: list[pathlib.Path]) -> dict[str, str]:
    """File name to licence, from the stanzas of a package's machine-readable copyright file."""
    terms = {}
    for path in (path for path in files if path.name == "copyright"):
        for stanza in re.split(r"\n\s*\n", path.read_text(encoding="utf-8", errors="replace")):
            match = re.search(r"^Files:(.*?)^\w[\w-]*:.*?^License: *(\S+)", stanza, re.DOTALL | re.MULTILINE)
            if match:
                terms.update({name.rsplit("/", 1)[-1]: match[2] for name in match[1].split()})
    return terms


def _write_licences(files: dict[str, list[pathlib.Path]], out: pathlib.Path) -> None:
    lines = [f"{name}: {licence}" for name, licence in PACKAGES.items()]
    for name, paths in files.items():
        for path in (path for path in paths if path.name == "copyright"):
            lines += ["", f"==== {name} ====", path.read_text(encoding="utf-8", errors="replace")]
    (out / "LICENSES.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def cut_out(picture: Image.Image) -> Image.Image | None:
    """The picture cropped to where it is opaque; None if it is small or has no matte to speak of."""
    opaque = np.asarray(picture)[..., 3] > 127
    box = Image.fromarray(opaque.astype(np.uint8)).getbbox()
    if box is None or max(picture.size) < MIN_SIDE or opaque.mean() > 0.98:
        return None
    picture = picture.crop(box)
    picture.thumbnail((OBJECT_SIDE, OBJECT_SIDE))
    return picture


def read_descriptions(path: pathlib.Path) -> dict[str, str]:
    """Language code to description; English is the first line, the others read `de.utf8=...`."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    found = {"en": lines[0].strip()} if lines else {}
    for line in lines[1:]:
        match = re.match(r"([\w@-]+)\.utf8=(.+)", line)
        if match:
            found[match[1]] = match[2].strip()
    return found


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
    """The colour that dominates an object, if one does, and the share of each that it has a tenth of.

    Teal and grey are counted, so that they are neither blue nor green nor white, but are never said.
    """
    small = np.asarray(cut.resize((32, 32)))
    words = [_pixel_colour(*pixel) for pixel in small[small[..., 3] > 127][:, :3] / 255]
    shares = {word: round(words.count(word) / len(words), 2) for word in sorted(set(words))}
    said = [word for word, share in shares.items() if share >= DOMINANT and word not in ("teal", "grey")]
    return (said[0] if said else None), {word: share for word, share in shares.items() if share >= 0.1}


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
    """About nine in ten; by the last word, so that all penguins are on one side."""
    return hashlib.sha256(name.split()[-1].encode()).digest()[2] % 10 != 0
