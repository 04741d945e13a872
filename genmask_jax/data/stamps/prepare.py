"""Makes the Stamps dataset: photographic cut-outs with exact mattes, and photographs as backgrounds.

Both come from public Debian packages and are not part of this project. A prepared directory has objects/*.png
(RGBA), backgrounds/*.jpg, index.json and LICENSES.txt.
"""

import fnmatch
import hashlib
import json
import pathlib
import re
import tempfile
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from genmask_jax.data.stamps.choices import EXCLUDED_BACKGROUNDS, EXCLUDED_STAMPS, NOUN_PHRASES
from genmask_jax.data.stamps.names import colours, from_file_name, is_seen, noun_phrase, read_descriptions
from genmask_jax.data.stamps.packages import PACKAGES, STAMPS, find_packages
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import UNREADABLE

MIN_SIDE, OBJECT_SIDE, BACKGROUND_SIDE = 128, 256, 640
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def prepare(out: pathlib.Path, raw: pathlib.Path | None) -> dict[str, Any]:
    """Finds or downloads the packages and writes the dataset; prints counts, skipped files and licences.

    Args:
        out: directory to make; a complete one is kept.
        raw: folder of .deb files, and of downloads; OUT/packages if None.

    Returns:
        The index: `objects` and `backgrounds`, each a list of entries.

    Raises:
        UserError: Debian's tools are missing, a package cannot be downloaded, or `out` has other content.
    """
    out = out.resolve()
    if (out / "index.json").exists():
        print(f"{out} is already prepared; nothing done (delete it to make it again)")
        return json.loads((out / "index.json").read_text(encoding="utf-8"))
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - {"packages"}):
        raise UserError(f"--out={out} is not a complete Stamps dataset; give a new directory")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Made in a temporary directory and renamed at the end: an interrupted run leaves no incomplete dataset.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        files = find_packages((raw or out / "packages").resolve(), pathlib.Path(temporary) / "unpacked")
        work = pathlib.Path(temporary) / "made"
        work.mkdir()
        skipped: list[str] = []
        index = {
            "objects": make_objects(files, work, skipped),
            "backgrounds": make_backgrounds(files, work, skipped),
        }
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
    splits = [entry["split"] for entry in index["backgrounds"]]
    print(
        f"{out}: {len(index['objects'])} objects with {names} names ({seen} for training, "
        f"{len(index['objects']) - seen} unseen); {len(splits)} backgrounds "
        f"({', '.join(f'{splits.count(split)} {split}' for split in SHARES)}); "
        f"{len(skipped)} broken files skipped"
    )
    licences = "; ".join(f"{name} {licence}" for name, licence in PACKAGES.items())
    print(f"licences: {licences}; more in {out / 'LICENSES.txt'}")


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
        if any(fnmatch.fnmatch(key, pattern) for pattern in EXCLUDED_STAMPS.split()):
            continue
        try:
            with Image.open(path) as image:
                cut = cut_out(image.convert("RGBA"))
        except UNREADABLE as error:
            skipped.append(f"{path.name}: {' '.join(str(error).split())}")
            continue
        if cut is None:
            continue
        descriptions = read_descriptions(path.with_suffix(".txt"))
        name = (
            NOUN_PHRASES.get(path.stem)
            or noun_phrase(descriptions.get("en", ""))
            or from_file_name(path.stem)
        )
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
        raise UserError(f"stamps: the package {STAMPS} has no usable cut-out; download it again")
    return objects


def make_backgrounds(
    files: dict[str, list[pathlib.Path]], out: pathlib.Path, skipped: list[str]
) -> list[dict[str, Any]]:
    """Writes backgrounds/*.jpg, reduced in size, one per photograph.

    Splits: ordered by a hash of their names, the first 70 % are train, the next 10 % val, the rest test.
    """
    (out / "backgrounds").mkdir()
    entries: dict[str, dict[str, Any]] = {}
    for package in list(PACKAGES)[1:]:
        licences = _own_licences(files[package])
        for key, path in sorted(_photographs(files[package]).items()):
            try:
                with Image.open(path) as image:
                    image.draft(
                        "RGB", (2 * BACKGROUND_SIDE, 2 * BACKGROUND_SIDE)
                    )  # decodes a JPEG at a smaller size
                    image = image.convert("RGB")
            except UNREADABLE as error:
                skipped.append(f"{path.name}: {' '.join(str(error).split())}")
                continue
            image.thumbnail((BACKGROUND_SIDE, BACKGROUND_SIDE))
            file = f"backgrounds/{key}.jpg"
            image.save(out / file, quality=92)
            licence = licences.get(path.name, PACKAGES[package])
            entries[key] = {"file": file, "package": package, "licence": licence}
    if len(entries) < len(SHARES):
        raise UserError(
            f"stamps: only {len(entries)} usable background photographs; download {list(PACKAGES)[1]} again"
        )
    keys = sorted(entries, key=lambda key: hashlib.sha256(key.encode()).digest())
    train_end = max(1, round(SHARES["train"] * len(keys)))
    val_end = train_end + max(1, round(SHARES["val"] * len(keys)))
    for split, members in zip(
        SHARES, (keys[:train_end], keys[train_end:val_end], keys[val_end:]), strict=True
    ):
        for key in members:
            entries[key]["split"] = split
    return [entries[key] for key in sorted(entries)]


def _photographs(files: list[pathlib.Path]) -> dict[str, pathlib.Path]:
    """The largest file of each possible background, by its name (in Plasma, the name of its folder)."""
    largest: dict[str, pathlib.Path] = {}
    for path in files:
        plasma = "contents" in path.parts
        if (
            path.suffix not in (".jpg", ".jpeg")
            or path.is_symlink()
            or (plasma and path.parent.name != "images")
        ):
            continue
        key = path.parents[2].name if plasma else re.sub(r"_\d+x\d+$", "", path.stem)
        if any(
            fnmatch.fnmatch(f"{path.parent.name}/{key}", pattern) for pattern in EXCLUDED_BACKGROUNDS.split()
        ):
            continue
        if key not in largest or path.stat().st_size > largest[key].stat().st_size:
            largest[key] = path
    return largest


def _own_licences(files: list[pathlib.Path]) -> dict[str, str]:
    """Licences by file name, from a package's machine-readable copyright file."""
    licences = {}
    for path in (path for path in files if path.name == "copyright"):
        for stanza in re.split(r"\n\s*\n", path.read_text(encoding="utf-8", errors="replace")):
            match = re.search(r"^Files:(.*?)^\w[\w-]*:.*?^License: *(\S+)", stanza, re.DOTALL | re.MULTILINE)
            if match:
                licences.update({name.rsplit("/", 1)[-1]: match[2] for name in match[1].split()})
    return licences


def _write_licences(files: dict[str, list[pathlib.Path]], out: pathlib.Path) -> None:
    lines = [f"{name}: {licence}" for name, licence in PACKAGES.items()]
    for name, paths in files.items():
        for path in (path for path in paths if path.name == "copyright"):
            lines += ["", f"==== {name} ====", path.read_text(encoding="utf-8", errors="replace")]
    (out / "LICENSES.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def cut_out(image: Image.Image) -> Image.Image | None:
    """The image cropped to its opaque part; None if it is small or almost fully opaque."""
    opaque = np.asarray(image)[..., 3] > 127
    box = Image.fromarray(opaque.astype(np.uint8)).getbbox()
    if box is None or max(image.size) < MIN_SIDE or opaque.mean() > 0.98:
        return None
    image = image.crop(box)
    image.thumbnail((OBJECT_SIDE, OBJECT_SIDE))
    return image
