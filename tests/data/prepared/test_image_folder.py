"""Layouts of a user's own images: masks pixel by pixel against an independent reading; oddities by name."""

import base64
import io
import json
import pathlib

import cv2
import numpy as np
import pytest
from etils import epath
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from genmask_jax.config import DataConfig
from genmask_jax.data.examples import IGNORED_PIXEL, NO_CLASS
from genmask_jax.data.masks import IGNORE
from genmask_jax.data.prepared import records
from genmask_jax.data.prepared.inspect import inspect
from genmask_jax.data.prepared.prepare import NOTES, PROBLEMS, prepare
from genmask_jax.data.sources import label_maps, segment_source
from genmask_jax.utils.errors import UserError

H, W = 40, 56


def picture(path: pathlib.Path, seed=0, size=(H, W)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)


def numbers(path: pathlib.Path, values: np.ndarray, palette=False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    if palette:
        image = image.convert("P")
        image.putdata(values.ravel().tolist())
        image.putpalette([i for n in range(256) for i in (n, 255 - n, n // 2)])
    image.save(path)


def patches(seed=0, of=(0, 1, 2)) -> np.ndarray:
    """Class numbers [H, W] in blocks of 8 pixels."""
    small = np.random.default_rng(seed).choice(of, (H // 8, W // 8))
    return small.repeat(8, 0).repeat(8, 1)


def made(raw, out, **options):
    """Every expression that was prepared: (split, image, text) -> mask uint8 of 0, 1 and 255."""
    prepare("image_folder", epath.Path(raw), epath.Path(out), num_workers=1, **options)
    folder = records.find(out, "image_folder")
    found = {}
    for split in records.splits_of(folder):
        for record, number in records.Items(folder, split, "expressions"):
            asked = records.read_expression(record, number)
            found[split, record["image_id"].decode(), asked.text] = asked.mask
    return found


def lines(out, name=PROBLEMS) -> str:
    return (epath.Path(records.find(out, "image_folder")) / name).read_text()


PLACES = {
    "folders in folders": ("images/{split}/{name}.jpg", "labels/{split}/{name}.png"),
    "folders in splits": ("{split}/images/{name}.jpg", "{split}/masks/{name}.png"),
    "SegNet": ("{split}/{name}.png", "{split}annot/{name}.png"),
    "Cityscapes": (
        "leftImg8bit/{split}/town/{name}_leftImg8bit.png",
        "gtFine/{split}/town/{name}_gtFine_labelIds.png",
    ),
    "ADE20K": ("images/{long}/{name}.jpg", "annotations/{long}/{name}.png"),
}


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_class_maps_come_back_pixel_by_pixel_from_wherever_they_lie(tmp_path, place, palette):
    raw, (image, label) = tmp_path / "raw", PLACES[place]
    expected = {}
    for split, long, count in (("train", "training", 2), ("val", "validation", 1)):
        for i in range(count):
            where = {"split": split, "long": long, "name": f"шар {i}"}
            values = patches(seed=i + len(split), of=(0, 1, 7, 255))
            picture(raw / image.format(**where), seed=i)
            numbers(raw / label.format(**where), values, palette)
            for number, text in ((0, "traffic light"), (1, "дорога")):
                if (values == number).any():
                    name = f"town/{where['name']}" if place == "Cityscapes" else where["name"]
                    expected[split, name, text] = np.where(values >= 7, IGNORE, values == number)
    (raw / "classes.txt").write_text("Traffic_Light\nДорога\n")
    found = made(raw, tmp_path / "out")
    assert found.keys() == expected.keys()
    for key, mask in expected.items():
        np.testing.assert_array_equal(found[key], mask)
    unexplained = "the number 7 has no name in classes.txt; these pixels, in 3 masks, are ignored"
    assert unexplained in lines(tmp_path / "out")
    assert records.read_classes(records.find(tmp_path / "out", "image_folder")) == ("traffic light", "дорога")


def test_numbered_names_say_what_is_ignored_and_what_nobody_asks_for(tmp_path):
    raw = tmp_path / "raw"
    values = patches(of=(0, 5, 9))
    for i in range(12):
        picture(raw / "JPEGImages" / f"{i}.jpg", i)
        numbers(raw / "SegmentationClass" / f"{i}.png", values, palette=True)
    (raw / "classes.txt").write_text("0 background\n5 bottle\n9 void\n")
    lists = raw / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(map(str, range(9))))
    (lists / "val.txt").write_text("9\n10\n")
    found = made(raw, tmp_path / "out")
    assert {(split, text) for split, _, text in found} == {("train", "bottle"), ("val", "bottle")}
    assert len(found) == 11
    np.testing.assert_array_equal(found["val", "9", "bottle"], np.where(values == 9, IGNORE, values == 5))
    assert "11.jpg is not read: it is in no list of a split" in lines(tmp_path / "out")


def test_oddities_of_class_maps_are_named_and_cost_no_other(tmp_path):
    raw = tmp_path / "raw"
    for i in range(6):
        picture(raw / "images" / f"{i}.png", i)
    numbers(raw / "labels" / "0.png", patches())
    numbers(raw / "labels" / "1.png", patches()[:-4])
    (raw / "labels" / "2.png").write_bytes(b"no image")
    picture(raw / "labels" / "3.png")
    numbers(raw / "labels" / "4.png", np.full((H, W), 255))
    numbers(raw / "labels" / "9.png", patches())
    (raw / "classes.txt").write_text("a\nb\nc\n")
    found = made(raw, tmp_path / "out")
    assert {name for _, name, _ in found} == {"0"}
    said = lines(tmp_path / "out")
    for part in (
        f"1.png has {H} x {W} pixels, its labels {H - 4} x {W}",
        "2.png: this mask cannot be read",
        "3.png has colours",
        "4.png has no pixel of a named class",
        "5.png has no mask",
        "9.png has class numbers but no image",
    ):
        assert part in said


@pytest.mark.parametrize("names", [("{}.jpg", "{}_mask.png"), ("images/{}.jpg", "masks/{}.png")])
@pytest.mark.parametrize("white", [1, 255])
def test_black_and_white_masks_with_one_phrase(tmp_path, names, white):
    raw = tmp_path / "raw"
    for i in range(11):
        picture(raw / names[0].format(f"my leaf {i}"), i)
        numbers(raw / names[1].format(f"my leaf {i}"), (patches(i) == 1) * white)
    (raw / "phrases.txt").write_text("the leaf\n")
    found = made(raw, tmp_path / "out")
    assert len(found) == 11
    assert sum(split == "val" for split, _, _ in found) == 1
    for (_, name, text), mask in found.items():
        assert text == "the leaf"
        np.testing.assert_array_equal(mask, patches(int(name.split()[-1])) == 1)


def test_black_and_white_masks_with_a_phrase_each_and_their_oddities(tmp_path, capsys):
    raw = tmp_path / "raw"
    for i in range(4):
        picture(raw / f"{i}.jpg", i)
    numbers(raw / "0_mask.png", np.zeros((H, W)))
    numbers(raw / "1_mask.png", (patches() == 1) * 255)
    numbers(raw / "3_mask.png", (patches() == 1) * 255)
    with pytest.raises(UserError, match=r"phrases.txt is missing: write the phrase of the masks"):
        made(raw, tmp_path / "out")
    (raw / "phrases.txt").write_text("0.jpg\tthe cat, asleep\n1,a dog\n2,nothing\n")
    found = made(raw, tmp_path / "out")
    assert "read as masks: 3 images with a black-and-white mask" in capsys.readouterr().out
    assert set(found) == {("train", "0", "the cat, asleep"), ("val", "1", "a dog")}
    assert not found["train", "0", "the cat, asleep"].any()
    assert "0_mask.png is black" in lines(tmp_path / "out", NOTES)
    assert "2.jpg has no mask" in lines(tmp_path / "out")
    assert "3.jpg has no phrase" in lines(tmp_path / "out")


def test_phrases_as_tables_are_saved(tmp_path):
    raw = tmp_path / "raw"
    for i in range(2):
        picture(raw / f"{i}.jpg", i)
        numbers(raw / f"{i}_mask.png", (patches() == 1) * 255)
    rows = ["name,phrase", '0.jpg,"the ""big"" cat, asleep"', '"1.jpg","a dog"', "7.jpg,a", "8.jpg,b"]
    (raw / "phrases.txt").write_text("\n".join(rows))
    found = made(raw, tmp_path / "out")
    assert set(found) == {("train", "0", 'the "big" cat, asleep'), ("val", "1", "a dog")}
    assert "phrases.txt: 2 lines have the name of no image, such as 7" in lines(tmp_path / "out")
    (raw / "phrases.txt").write_text('"the leaf, green"')
    assert {key[2] for key in made(raw, tmp_path / "other")} == {"the leaf, green"}


def test_yolo_polygons_come_back_as_pycocotools_draws_them(tmp_path):
    raw = tmp_path / "raw"
    shapes = {"0": [(2, [0.1, 0.1, 0.9, 0.2, 0.5, 0.8]), (2, [0.0, 0.9, 0.2, 0.9, 0.2, 1.0, 0.0, 1.0])]}
    shapes["1"] = [(0, [0.5, 0.5, 1.0, 0.5, 1.0, 1.0])]
    for name, some in shapes.items():
        picture(raw / "images" / "train2017" / f"{name}.jpg")
        path = raw / "labels" / "train2017" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = [f"{number} {' '.join(map(str, xy))}" for number, xy in some]
        path.write_text("\n".join([*text, "0 0.5 0.5 0.1 0.1", "7 0.1 0.1 0.2 0.2 0.1 0.2", "zebra 1 2"]))
    (raw / "data.yaml").write_text("names: {0: zebra, 1: cow, 2: polar_bear}\ntrain: images/train2017\n")
    found = made(raw, tmp_path / "out")
    assert set(found) == {("train", "0", "polar bear"), ("val", "1", "zebra")}
    for (_, name, _), mask in found.items():
        expected = np.zeros((H, W), bool)
        for _, xy in shapes[name]:
            scaled = (np.array(xy).reshape(-1, 2) * (W, H)).ravel().tolist()
            expected |= coco.decode(coco.frPyObjects([scaled], H, W))[..., 0].astype(bool)
        np.testing.assert_array_equal(mask, expected)
    said = lines(tmp_path / "out")
    for part in ("line 3 is a box, not a polygon", "the class number 7 has no name", "line 5 is not a class"):
        assert part in said


def test_labelme_shapes_come_back_as_labelme_draws_them(tmp_path):
    raw = tmp_path / "raw"
    small = np.zeros((6, 9), bool)
    small[1:5, 2:8] = True
    stored = io.BytesIO()
    Image.fromarray(small).save(stored, format="PNG")
    shapes = [
        {"label": "cat", "shape_type": "polygon", "points": [[2, 2], [30, 4], [12, 30]], "group_id": 1},
        {"label": "cat", "shape_type": "rectangle", "points": [[50, 30], [40, 20]], "group_id": 1,
         "description": "the sleeping cat"},
        {"label": "sun", "shape_type": "circle", "points": [[20, 20], [26, 20]]},
        {"label": "moon", "shape_type": "mask", "points": [[40, 3], [48, 8]],
         "mask": base64.b64encode(stored.getvalue()).decode()},
        {"label": "wire", "shape_type": "line", "points": [[1, 1], [5, 5]]},
        {"label": "far", "shape_type": "polygon", "points": [[200, 200], [300, 200], [300, 300]]},
    ]  # fmt: skip
    picture(raw / "a.png")
    picture(tmp_path / "b.png", 1)
    inside = base64.b64encode((tmp_path / "b.png").read_bytes()).decode()
    (raw / "a.json").write_text(json.dumps({"version": "5.5.0", "shapes": shapes, "imageData": None}))
    (raw / "b.json").write_text(json.dumps({"shapes": shapes[2:3], "imageData": inside}))
    found = made(raw, tmp_path / "out")

    def drawn(*draws):
        image = Image.new("L", (W, H), 0)
        for kind, xy in draws:
            getattr(ImageDraw.Draw(image), kind)(xy, outline=1, fill=1)
        return np.asarray(image) > 0

    cat = drawn(("polygon", [(2, 2), (30, 4), (12, 30)]), ("rectangle", [40, 20, 50, 30]))
    moon = np.zeros((H, W), bool)
    moon[3:9, 40:49] = small
    sun = drawn(("ellipse", [14, 14, 26, 26]))
    expected = {"cat": cat, "the sleeping cat": cat, "sun": sun, "moon": moon}
    assert {text for _, name, text in found if name == "a"} == expected.keys()
    for text, mask in expected.items():
        np.testing.assert_array_equal(found["train", "a", text], mask)
    np.testing.assert_array_equal(found["val", "b", "sun"], sun)
    said = lines(tmp_path / "out")
    assert "(wire) is a line, which has no area" in said
    assert "(far) covers no pixel" in said
    classes = records.read_classes(records.find(tmp_path / "out", "image_folder"))
    assert set(classes) == {"cat", "sun", "moon"}


def as_class_maps(raw):
    for i in range(3):
        values = np.full((H, W), 2) if i else patches(of=(0, 1, 2))
        values[:8] = 255
        numbers(raw / "labels" / f"{i}.png", values)
    (raw / "classes.txt").write_text("cat\nsun\nbackground\n")


def as_yolo(raw):
    for i in range(3):
        path = raw / "labels" / f"{i}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("" if i else "0 0.1 0.1 0.9 0.1 0.9 0.9")
    (raw / "classes.txt").write_text("cat\n")


def as_coco(raw):
    entries = [{"id": i, "file_name": f"{i}.png", "height": H, "width": W} for i in range(3)]
    one = {"id": 7, "image_id": 0, "category_id": 1, "segmentation": [[1, 1, 30, 1, 30, 30]]}
    content = {"images": entries, "annotations": [one], "categories": [{"id": 1, "name": "cat"}]}
    (raw / "images" / "annotations.json").write_text(json.dumps(content))


def as_labelme(raw):
    for i in range(3):
        shape = {"label": "cat", "points": [[1, 1], [30, 1], [30, 30]], "shape_type": "polygon"}
        (raw / "images" / f"{i}.json").write_text(json.dumps({"shapes": [] if i else [shape]}))


@pytest.mark.parametrize("annotate", [as_class_maps, as_yolo, as_coco, as_labelme])
def test_annotated_images_without_a_class_are_kept_for_label_maps_and_as_negatives(tmp_path, annotate):
    raw = tmp_path / "raw"
    for i in range(3):
        picture(raw / "images" / f"{i}.png", i)
    annotate(raw)
    if annotate in (as_coco, as_labelme):  # which lie beside the images
        raw = raw / "images"
    made(raw, tmp_path / "out")
    config = DataConfig(name="image_folder", path=str(tmp_path / "out"), size=32)
    read = [
        maps[i]
        for split in ("train", "val")
        for maps in [label_maps(config, split)]
        for i in range(len(maps))
    ]
    assert len(read) == 3
    bare = [one["labels"] for one in read if (one["labels"] < 0).all()]
    assert len(bare) == 2
    ignored = 8 if annotate is as_class_maps else 0
    for labels in bare:
        assert (labels[:ignored] == IGNORED_PIXEL).all()
        assert (labels[ignored:] == NO_CLASS).all()
    assert "an image shows no class" in lines(tmp_path / "out", NOTES)
    assert not lines(tmp_path / "out")
    train = segment_source(config, "train")
    assert {train.full_size(0)["classless"][i]["absent"] for i in range(len(train.classless))} == {
        train.classes
    }
    assert train.classless.share == 0.5  # of two; the third is held out


def test_captions_of_metadata_jsonl(tmp_path):
    raw = tmp_path / "raw"
    for i in range(3):
        picture(raw / "train" / f"{i}.jpg", i)
    entries = [{"file_name": "0.jpg", "text": "a tree"}, {"file_name": "1.jpg", "caption": " a lake "}, {}]
    (raw / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, entries)))
    prepare("image_folder", epath.Path(raw), epath.Path(tmp_path / "out"), num_workers=1)
    folder = records.find(tmp_path / "out", "image_folder")
    captions = {
        split: [record["captions"][n].decode() for record, n in records.Items(folder, split, "captions")]
        for split in ("train", "val")
    }
    assert captions == {"train": ["a tree"], "val": ["a lake"]}
    said = lines(tmp_path / "out")
    assert "line 3 has no file_name" in said
    assert "2.jpg is an image without a caption" in said


def test_a_format_can_be_named_and_other_readings_are_said(tmp_path, capsys):
    raw = tmp_path / "raw"
    for i in range(2):
        picture(raw / f"{i}.jpg", i)
        numbers(raw / f"{i}_mask.png", (patches(i) == 1) * 1)
    (raw / "classes.txt").write_text("soil\nplant\n")
    (raw / "phrases.txt").write_text("the plant")
    found = made(raw, tmp_path / "maps")
    assert {text for _, _, text in found} == {"soil", "plant"}
    assert "it also looks like masks" in capsys.readouterr().out
    assert {text for _, _, text in made(raw, tmp_path / "masks", format="masks")} == {"the plant"}


def test_inspect_shows_the_same_and_writes_a_sheet_alone(tmp_path, capsys):
    raw = tmp_path / "raw"
    for i in range(3):
        picture(raw / f"{i}.jpg", i)
        numbers(raw / f"{i}_mask.png", (patches(i) == 1) * 255)
    (raw / "phrases.txt").write_text("the leaf")
    picture(raw / "3.jpg")
    before = sorted(tmp_path.rglob("*"))
    inspect("image_folder", epath.Path(raw), epath.Path(tmp_path / "sheet.png"))
    said = capsys.readouterr().out
    assert "3.jpg has no mask" in said
    assert "the leaf" in said
    assert set(tmp_path.rglob("*")) - set(before) == {tmp_path / "sheet.png"}
    assert cv2.imread(str(tmp_path / "sheet.png")).std() > 20


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("0 road\nsky\n", r"'sky' has no number"),
        ("0 road\n0 sky\n", "the number 0 has two names"),
        ("", "has no class name"),
    ],
)
def test_bad_names_are_one_line(tmp_path, content, says):
    picture(tmp_path / "images" / "0.jpg")
    numbers(tmp_path / "labels" / "0.png", patches())
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(UserError, match=says):
        made(tmp_path, tmp_path / "out")
