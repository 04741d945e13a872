"""Stamps: prepared from a small imitation of the Debian packages, then composed and asked about."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genmask_jax.data.stamps import packages as package_files
from genmask_jax.data.stamps import prepare
from genmask_jax.data.stamps.scene import load
from genmask_jax.data.stamps.source import StampsGenerate, StampsSegment
from genmask_jax.data.stamps.words import ambiguous
from genmask_jax.utils.errors import UserError

SIZE = 64
RGB = {"red": (210, 20, 20), "blue": (30, 70, 210), "green": (30, 160, 40), "white": (240, 240, 240)}
# Under the stamps' folder: path, English description, colour. The last words of some are unseen ones.
OBJECTS = {
    "food/fruit/strawberry": ("A strawberry.", "red"),
    "animals/birds/adelaide-rosella": ("An Adelaide Rosella.", "blue"),
    "plants/leaf": ("A leaf.", "green"),
    "household/toilet": ("Remember to flush the toilet!", "white"),
    "animals/birds/penguin": ("A penguin.", "white"),
    "animals/birds/little-penguin": ("A little penguin (a bird).", "blue"),
    "household/wheelie_bin": ("A wheelie bin! Give me your trash!", "green"),
    "vehicles/kite_photo_1": ("Kites have been flown for 2,000 years, and they still are.", "red"),
    "sports/ball": ("A ball.", None),
}


def stamp_image(colour, size=(160, 140)):
    """A disc with a transparent margin; striped in red and blue when `colour` is None."""
    y, x = np.mgrid[: size[1], : size[0]]
    inside = ((x - size[0] / 2) / (size[0] * 0.45)) ** 2 + ((y - size[1] / 2) / (size[1] * 0.45)) ** 2 < 1
    stripes = np.array([RGB["red"], RGB["blue"]])[(x // 12) % 2]
    rgb = stripes if colour is None else np.broadcast_to(RGB[colour], (*inside.shape, 3))
    return Image.fromarray(np.dstack([rgb, inside * 255]).astype(np.uint8), "RGBA")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Image.Image):
        content.save(path)
    else:
        path.write_text(content, encoding="utf-8")


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder of "packages": directories called like .deb files, which the imitated dpkg-deb copies."""
    raw = tmp_path_factory.mktemp("raw")
    share = {name: raw / f"{name}_1.0_all.deb" / "usr/share" for name in package_files.PACKAGES}
    tree = share["tuxpaint-stamps-default"] / "tuxpaint/stamps"
    for path, (description, colour) in OBJECTS.items():
        write(tree / f"{path}.png", stamp_image(colour))
        write(tree / f"{path}.txt", f"{description}\nde.utf8=Ein Ding: {path}\nsr@latin.utf8=Stvar.\n")
    for left_out in (
        "symbols/sign",
        "animals/cartoon/tux",
        "animals/birds/penguin_mirror",
        "plants/leaf_flip",
    ):
        write(tree / f"{left_out}.png", stamp_image("red"))
    write(tree / "food/fruit/raisin.png", stamp_image("red", (100, 90)))
    write(tree / "food/fruit/pear.svg", "<svg/>")
    write(tree / "animals/broken.png", "no image")
    rng = np.random.default_rng(0)
    grey = [Image.fromarray(np.full((200, 320, 3), 90 + 5 * i, np.uint8)) for i in range(10)]
    for i in range(8):
        write(share["mate-backgrounds"] / f"backgrounds/mate/nature/View{i}.jpg", grey[i])
    write(share["mate-backgrounds"] / "backgrounds/mate/nature/View7_640x400.jpg", grey[7].resize((640, 400)))
    write(share["mate-backgrounds"] / "backgrounds/mate/nature/YellowFlower.jpg", grey[8])
    stanza = "Files: nature/View1.jpg\n       nature/View2.jpg\nCopyright: 2020, A\nLicense: CC0-1.0\n"
    write(share["mate-backgrounds"] / "doc/mate-backgrounds/copyright", f"Format: 1.0\n\n{stanza}")
    plasma = share["plasma-workspace-wallpapers"] / "wallpapers/Lake/contents"
    write(plasma / "images/2560x1600.jpg", Image.fromarray(rng.integers(0, 255, (400, 640, 3), np.uint8)))
    write(plasma / "images/1024x768.jpg", grey[9])
    write(plasma / "screenshot.jpg", grey[9])
    for name in ("lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04"):
        write(share[name] / f"backgrounds/{name}.jpg", grey[9])
    return raw


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A folder with imitations of the Debian tools: dpkg-deb copies, apt-get has no network."""
    folder = tmp_path_factory.mktemp("tools")
    for name, line in {
        "dpkg-deb": 'cp -R "$2"/. "$3"',
        "apt-get": "echo 'E: no network' >&2; exit 100",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{line}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def debian(monkeypatch, tools):
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(package_files, "_installed", lambda name: [])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, packages, tools):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tools))
        patch.setattr(package_files, "_installed", lambda name: [])
        patch.setattr(prepare, "is_seen", lambda name: name.split()[-1] not in ("penguin", "bin", "ball"))
        out = tmp_path_factory.mktemp("data") / "stamps"
        prepare.prepare(out, packages)
    return out


def by_name(prepared):
    return {entry["name"]: entry for entry in json.loads((prepared / "index.json").read_text())["objects"]}


# --- preparing


def test_objects_are_named_and_described(prepared):
    entries = by_name(prepared)
    names = "strawberry,adelaide rosella,leaf,toilet,penguin,little penguin,wheelie bin,kite,ball"
    assert set(entries) == set(names.split(","))
    assert entries["kite"]["descriptions"]["sr@latin"] == "Stvar."
    assert entries["adelaide rosella"]["descriptions"]["de"] == "Ein Ding: animals/birds/adelaide-rosella"
    assert entries["leaf"]["category"] == "plants"
    assert (entries["strawberry"]["colour"], entries["toilet"]["colour"]) == ("red", "white")
    assert entries["ball"]["colour"] is None


def test_cut_outs_are_cropped_to_their_matte(prepared):
    image = np.asarray(Image.open(prepared / by_name(prepared)["leaf"]["file"]))
    assert image.shape[2] == 4
    assert max(image.shape) <= 256
    assert all((image[edge][..., 3] > 127).any() for edge in (0, -1, np.s_[:, 0], np.s_[:, -1]))


def test_backgrounds_are_split_without_copies_and_licensed(prepared):
    backgrounds = json.loads((prepared / "index.json").read_text())["backgrounds"]
    names = [Path(entry["file"]).stem for entry in backgrounds]
    assert sorted(names) == sorted(
        [f"View{i}" for i in range(8)] + ["Lake", "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04"]
    )
    splits = [entry["split"] for entry in backgrounds]
    assert (splits.count("train"), splits.count("val"), splits.count("test")) == (8, 1, 2)
    licences = dict(zip(names, (entry["licence"] for entry in backgrounds), strict=True))
    assert licences["View2"] == "CC0-1.0"
    assert licences["View3"] == "GPL-2+"
    assert "View2.jpg" in (prepared / "LICENSES.txt").read_text()
    assert Image.open(prepared / "backgrounds/Lake.jpg").size == (640, 400)  # the larger of the two


def test_broken_images_are_named_and_counted(debian, tmp_path, packages, capsys):
    prepare.prepare(tmp_path / "out", packages)
    said = capsys.readouterr().out
    assert "skipped broken.png" in said
    assert "1 broken files skipped" in said
    assert "9 objects with 9 names" in said
    assert "licences: tuxpaint-stamps-default GPL-2" in said
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_complete_directory_is_left_alone(prepared, tmp_path, capsys):
    before = (prepared / "index.json").stat().st_mtime_ns
    index = prepare.prepare(prepared, tmp_path)
    assert "already prepared" in capsys.readouterr().out
    assert len(index["objects"]) == len(OBJECTS)
    assert (prepared / "index.json").stat().st_mtime_ns == before


def test_another_directory_is_refused(debian, tmp_path, packages):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="--out="):
        prepare.prepare(tmp_path, packages)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_interrupted_run_leaves_nothing_and_can_be_repeated(debian, tmp_path, packages, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "make_backgrounds", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare(tmp_path / "out", packages)
    assert list(tmp_path.iterdir()) == []
    prepare.prepare(tmp_path / "out", packages)


def test_packages_in_the_output_directory_are_kept(debian, tmp_path, packages):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/packages").symlink_to(packages)
    prepare.prepare(tmp_path / "out", None)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "packages", "objects", "backgrounds", "index.json", "LICENSES.txt"
    }  # fmt: skip


def test_no_debian_tool(debian, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=r"no apt-get/dpkg-deb; install dpkg-deb and copy the \.deb files of tuxpaint"
    ) as caught:
        prepare.prepare(tmp_path / "out", tmp_path / "debs")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_no_network(debian, tmp_path):
    with pytest.raises(UserError, match=r"cannot download tuxpaint-stamps-default.*no network"):
        prepare.prepare(tmp_path / "out", tmp_path / "debs")


def test_the_script_says_one_line(tmp_path):
    (tmp_path / "x").write_text("")
    script = Path(__file__).parents[3] / "launch/prepare_data.py"
    command = [sys.executable, str(script), "stamps", f"--out={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: --out=")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("description", "name"),
    [
        ("An Adelaide Rosella.", "adelaide rosella"),
        ("A peacock (a male peafowl).", "peacock"),
        ("A pair of binoculars.", "binoculars"),
        ("A plumber’s wrench.", "plumber's wrench"),
        ("A “Fuji” apple.", "fuji apple"),
        ("A Seville orange, also called a bitter orange.", "seville orange"),
        ("Remember to flush the toilet!", None),
        ("A hoverfly resembles a honeybee drone.", None),
    ],
)
def test_noun_phrases(description, name):
    assert prepare.noun_phrase(description) == name


def test_about_a_tenth_of_names_is_unseen_and_kin_stay_together():
    share = np.mean([not prepare.is_seen(f"word{i}") for i in range(2000)])
    assert 0.08 < share < 0.13
    assert prepare.is_seen("little penguin") == prepare.is_seen("penguin")


# --- composing


def test_examples_have_the_documented_form(prepared):
    source = StampsSegment(str(prepared), "test", SIZE, length=60)
    assert len(source) == 60
    assert len({source[i]["id"] for i in range(60)}) == 60
    for i in range(60):
        example, count = source[i], len(source.question(i).scene.stamps)
        assert (example["image"].shape, example["image"].dtype) == ((SIZE, SIZE, 3), np.uint8)
        for key in ("mask", "other_mask", "objects_mask"):
            assert (example[key].shape, example[key].dtype) == ((SIZE, SIZE), np.uint8)
            assert set(np.unique(example[key])) <= {0, 1}
        assert example["mask"].mean() >= 0.015
        assert (example["other_text"] == "") == (count == 1) == (not example["other_mask"].any())
        assert not (example["mask"] & example["other_mask"]).any()
        assert (example["objects_mask"] >= example["mask"]).all()


def test_masks_are_the_visible_parts(prepared):
    """Painted anew in flat colours, back to front, each object shows exactly where its mask is."""
    source, hidden = StampsSegment(str(prepared), "val", SIZE), 0
    for i in range(40):
        question = source.question(i)
        canvas = np.full((SIZE, SIZE), -1)
        for j, (rows, columns, pixels) in enumerate(question.scene.layers):
            canvas[rows, columns] = np.where(pixels[..., 3] > 127, j, canvas[rows, columns])
        for j, mask in enumerate(question.scene.masks):
            np.testing.assert_array_equal(mask, canvas == j)
        visible = question.scene.masks[question.target].sum() / question.scene.full_areas[question.target]
        assert visible >= 0.6
        hidden += visible < 1
    assert hidden > 0


def test_the_image_shows_the_object_where_its_mask_is(prepared):
    source, checked = StampsSegment(str(prepared), "train", SIZE), 0
    for i in range(60):
        question, example = source.question(i), source[i]
        colour = question.scene.stamps[question.target].colour
        inside = example["image"][example["mask"] > 0]
        if colour is not None:
            assert np.abs(np.median(inside, axis=0) - RGB[colour]).max() < 12
            checked += 1
    assert checked > 20


def test_training_has_no_unseen_object(prepared):
    for source in (StampsSegment(str(prepared), "train", SIZE), StampsGenerate(str(prepared), "train", SIZE)):
        for i in range(80):
            text = source[i]["text"]
            assert not any(word in text for word in ("penguin", "bin", "ball"))
    source = StampsSegment(str(prepared), "train", SIZE)
    assert all(stamp.seen for i in range(80) for stamp in source.question(i).scene.stamps)


def test_half_of_the_test_targets_are_unseen_and_never_named(prepared):
    source = StampsSegment(str(prepared), "test", SIZE)
    groups = [source[i]["group"] for i in range(200)]
    assert sum(group.startswith("unseen") for group in groups) == 100
    assert set(groups) == {
        "seen name", "seen colour", "seen place", "seen size", "unseen colour", "unseen place", "unseen size"
    }  # fmt: skip
    unseen_words = ("penguin", "bin", "ball")
    texts = [source[i][key] for i in range(200) for key in ("text", "other_text")]
    assert not any(word in text for text in texts for word in unseen_words)


def could_mean(text, names, colours, centres, areas):
    """Which objects a sentence fits, read by rules of its own; near ties of place and size count."""
    words = text.removeprefix("the ").split()
    fits = [i for i in range(len(names)) if areas[i] > 0]
    named = [name for name in names if f" {name} " in f" {' '.join(words)} "]
    if named:
        fits = [i for i in fits if set(names[i].split()) & set(max(named, key=len).split())]
    for word in RGB:
        if word in words:
            striped = None if word in ("red", "blue") else word
            fits = [i for i in fits if colours[i] in (word, striped)]
    for hints, axis, sign in (
        (("left", "leftmost"), 0, -1),
        (("right", "rightmost"), 0, 1),
        (("top",), 1, -1),
        (("bottom",), 1, 1),
    ):
        if set(hints) & set(words):
            best = max(sign * centres[i][axis] for i in fits)
            fits = [i for i in fits if sign * centres[i][axis] > best - 0.1]
    if {"large", "largest"} & set(words):
        fits = [i for i in fits if areas[i] * 1.4 > max(areas[j] for j in fits)]
    if {"small", "smallest"} & set(words):
        fits = [i for i in fits if areas[i] < 1.4 * min(areas[j] for j in fits)]
    return fits


@pytest.mark.parametrize("split", ["train", "test"])
def test_expressions_mean_exactly_one_object(prepared, split):
    source = StampsSegment(str(prepared), split, SIZE)
    for i in range(250):
        example, question = source[i], source.question(i)
        masks = question.scene.masks
        centres = [np.argwhere(m).mean(0)[::-1] / SIZE if m.any() else (0.5, 0.5) for m in masks]
        names = [stamp.name for stamp in question.scene.stamps]
        colours = [stamp.colour for stamp in question.scene.stamps]
        areas = [int(m.sum()) for m in masks]
        for text, mask in (("text", "mask"), ("other_text", "other_mask")):
            if example[text]:
                fits = could_mean(example[text], names, colours, centres, areas)
                assert len(fits) == 1, (example[text], names)
                np.testing.assert_array_equal(masks[fits[0]], example[mask])


def test_names_that_could_be_mistaken_do_not_meet(prepared):
    assert ambiguous("dog", "chihuahua dog")
    assert ambiguous("red apple", "green apple")
    assert ambiguous("gravestone", "headstone")
    assert not ambiguous("adelaide rosella", "strawberry")
    source = StampsSegment(str(prepared), "test", SIZE)
    for i in range(100):
        names = {stamp.name for stamp in source.question(i).scene.stamps}
        assert not {"penguin", "little penguin"} <= names


def test_one_name_twice_is_told_apart_by_place(prepared):
    source = StampsSegment(str(prepared), "train", SIZE)
    twice = 0
    for i in range(200):
        question = source.question(i)
        name = question.expression.name
        if name and sum(stamp.name == name for stamp in question.scene.stamps) > 1:
            assert question.expression.place is not None
            assert source[i]["group"] == "seen name"
            twice += 1
    assert twice > 5


@pytest.mark.parametrize("kind", [StampsSegment, StampsGenerate])
def test_examples_depend_on_seed_split_and_index_alone(prepared, kind):
    path = str(prepared)
    first, again = (
        kind(path, "test", SIZE, seed=3),
        pickle.loads(pickle.dumps(kind(path, "test", SIZE, seed=3))),
    )
    for i in (5, 0, 17):
        for key, value in first[i].items():
            np.testing.assert_array_equal(value, again[i][key])
    assert not np.array_equal(first[0]["image"], first[1]["image"])
    assert not np.array_equal(first[0]["image"], kind(path, "test", SIZE, seed=4)[0]["image"])
    assert not np.array_equal(first[0]["image"], kind(path, "val", SIZE, seed=3)[0]["image"])
    assert len(pickle.dumps(first)) < 10_000


def test_prompts(prepared):
    source = StampsGenerate(str(prepared), "train", SIZE)
    texts = [source[i]["text"] for i in range(60)]
    assert source[0]["image"].shape == (SIZE, SIZE, 3)
    assert any(text.startswith("a photo of a") for text in texts)
    assert any(" and a" in text and "photo" not in text for text in texts)
    assert not any(" a adelaide" in text for text in texts)


def test_splits_have_their_own_backgrounds(prepared):
    _, backgrounds = load(str(prepared))
    assert [len(backgrounds[split]) for split in ("train", "val", "test")] == [8, 1, 2]


def test_errors(prepared, tmp_path):
    with pytest.raises(UserError, match="python launch/prepare_data"):
        StampsSegment(str(tmp_path / "nowhere"), "train", SIZE)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(UserError, match="python launch/prepare_data"):
        StampsSegment(str(tmp_path), "train", SIZE)
    with pytest.raises(UserError, match="no split 'dev'"):
        StampsGenerate(str(prepared), "dev", SIZE)
    with pytest.raises(IndexError):
        StampsSegment(str(prepared), "val", SIZE)[-1]


def test_a_directory_of_an_older_version_is_read(prepared, tmp_path):
    """Backgrounds were called grounds."""
    older = shutil.copytree(prepared, tmp_path / "older")
    index = json.loads((older / "index.json").read_text())
    index["grounds"] = index.pop("backgrounds")
    (older / "index.json").write_text(json.dumps(index))
    here, there = (StampsSegment(str(path), "train", 32)[0]["image"] for path in (prepared, older))
    assert (here == there).all()
