"""What real annotations hold: each oddity is read, or named and left out, and costs nothing else."""

import json
import os
import re

import numpy as np
import pytest
import raw_trees
from etils import epath
from PIL import Image
from pycocotools import mask as coco
from test_prepare import everything, problems

from genmask_jax.data.prepared import records
from genmask_jax.data.prepared.prepare import prepare
from genmask_jax.evaluation.benchmarks import make_row, summarize_rows
from genmask_jax.utils.errors import UserError

SQUARE = [[4.0, 4.0, 20.0, 4.0, 20.0, 16.0, 4.0, 16.0]]
HEIGHT, WIDTH = 40, 60


def make(name, raw, **options):
    out = raw.parent / f"out_{len(list(raw.parent.iterdir()))}"
    prepare(name, epath.Path(raw), epath.Path(out), num_workers=1, **options)
    return out


def notes(out, name):
    return (epath.Path(records.find(out, name)) / "notes.txt").read_text().splitlines()


def square(size=(HEIGHT, WIDTH)):
    return coco.decode(coco.frPyObjects(SQUARE, *size))[..., 0]


def photograph(path, orientation=1, size=(HEIGHT, WIDTH), seed=0):
    """Saves an image, stored with these height and width and with an EXIF orientation."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    if orientation != 1:
        exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif)


def coco_folder(raw, images=None, annotations=None, name="annotations.json", **content):
    """A folder of three photographs with a square in each; entries may be replaced."""
    for i in range(3):
        photograph(raw / f"p{i}.png", seed=i)
    listed = [{"id": i, "file_name": f"p{i}.png", "height": HEIGHT, "width": WIDTH} for i in range(3)]
    objects = [
        {
            "id": 10 + i,
            "image_id": i,
            "category_id": 1,
            "segmentation": SQUARE,
            "expressions": [f"square {i}"],
        }
        for i in range(3)
    ]
    content = {
        "images": images(listed) if images else listed,
        "annotations": annotations(objects) if annotations else objects,
        "categories": [{"id": 1, "name": "Shape"}],
        **content,
    }
    (raw / name).write_text(json.dumps(content))
    return raw


def said(out, name="image_folder"):
    """Masks by text."""
    return {asked.text: asked.mask for asked in everything(out, name).values()}


# ReasonSeg


def test_annotations_without_shapes_are_kept_with_an_empty_mask_and_named(tmp_path):
    written = raw_trees.reasonseg_tree(tmp_path / "raw", {"val": 4})
    stems = [where.split("/")[1] for where in written]
    for stem, drawn in zip(stems, ([], [{"label": "flag", "points": [[0, 0]]}], None), strict=False):
        path = tmp_path / "raw" / "val" / f"{stem}.json"
        content = {"text": ["What?"], "is_sentence": True, "shapes": drawn}
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    out = make("reasonseg", tmp_path / "raw")
    found = everything(out, "reasonseg")
    for stem in stems[:2]:
        assert not found["val", stem].mask.any()
        assert found["val", stem].no_target
        assert f"val/{stem}.json has no shape; its mask is empty" in notes(out, "reasonseg")
    assert problems(out, "reasonseg") == [f"val/{stems[2]}.json has no list of shapes"]
    # As its papers score it: an empty prediction is right, any other wrong.
    asked = found["val", stems[0]]
    right, wrong = np.zeros(asked.mask.shape, bool), np.ones(asked.mask.shape, bool)
    for mask, expected in ((right, 1.0), (wrong, 0.0)):
        assert summarize_rows("reasonseg", [make_row(asked, mask)])["gIoU"] == expected


def test_a_dataset_with_notes_alone_is_strictly_good(tmp_path, capsys):
    written = raw_trees.reasonseg_tree(tmp_path / "raw", {"val": 2})
    path = tmp_path / "raw" / f"{next(iter(written))}.json"
    path.write_text(json.dumps({"text": ["What?"], "shapes": []}))
    make("reasonseg", tmp_path / "raw", strict=True)
    printed = capsys.readouterr().out
    assert "kept: val/0000_val.json has no shape" in printed
    assert "nothing was left out" in printed


def test_a_shape_outside_its_image_is_named_and_left_out(tmp_path):
    raw_trees.reasonseg_tree(tmp_path / "raw", {"val": 2})
    outside = {"label": "target", "points": [[900, 900], [950, 900], [950, 950]]}
    inside = {"label": "target", "points": [[5, 5], [30, 5], [30, 30]]}
    for stem, drawn in (("0000_val", [outside]), ("0001_val", [outside, inside])):
        (tmp_path / "raw" / "val" / f"{stem}.json").write_text(json.dumps({"text": "it", "shapes": drawn}))
    out = make("reasonseg", tmp_path / "raw")
    assert list(everything(out, "reasonseg")) == [("val", "0001_val")]
    lines = problems(out, "reasonseg")
    assert [line for line in lines if "shape 0 (target) lies outside the image" in line] == lines[::2]
    assert "val/0000_val.json has no valid shape" in lines


def test_what_systems_leave_among_the_files_is_no_image_and_no_annotation(tmp_path):
    raw_trees.reasonseg_tree(tmp_path / "raw", {"val": 2})
    for name in ("._0000_val.jpg", "._0000_val.json", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "raw" / "val" / name).write_bytes(b"\0\5\26\7")
    (tmp_path / "raw" / "__MACOSX" / "val").mkdir(parents=True)
    (tmp_path / "raw" / "__MACOSX" / "val" / "._0000_val.jpg").write_bytes(b"\0")
    (tmp_path / "raw" / "explanatory").mkdir()
    out = make("reasonseg", tmp_path / "raw", strict=True)
    assert not problems(out, "reasonseg")
    (line,) = notes(out, "reasonseg")
    assert "explanatory: this folder is not read (0 images)" in line


# gRefCOCO


def test_grefcoco_is_compared_with_what_was_released(tmp_path, capsys):
    objects = raw_trees.Objects(tmp_path / "raw", 8)
    objects.write("grefcoco")
    raw_trees.write_grefs(tmp_path / "raw", raw_trees.generalized(objects, ("val", "testA", "testB")))
    make("grefcoco", tmp_path / "raw")
    printed = capsys.readouterr().out
    expected = {"train": 209_344, "val": 16_870, "testA": 18_712, "testB": 14_933}
    assert sum(expected.values()) == 259_859
    missing = {}
    for line in printed.splitlines():
        if match := re.search(r"^\s+(\w+).* ([\d,]+) expressions missing", line):
            missing[match[1]] = int(match[2].replace(",", ""))
    found = everything(tmp_path / "out_1", "grefcoco")
    there = {split: sum(s == split for s, _ in found) for split in expected}
    assert missing == {split: count - there[split] for split, count in expected.items()}
    (paper,) = (line for line in printed.splitlines() if "in the paper" in line)
    assert "278,232" in paper
    assert "not all of the paper's data was released" in paper


# COCO's files


def test_an_image_listed_twice_has_the_objects_of_both(tmp_path):
    raw = coco_folder(
        tmp_path / "raw",
        images=lambda listed: [*listed, listed[0] | {"id": 7}, listed[1]],
        annotations=lambda objects: [
            *objects,
            objects[0] | {"id": 20, "image_id": 7, "expressions": ["of the second"]},
        ],
    )
    out = make("image_folder", raw)
    found = everything(out, "image_folder")
    texts = {text: key[1].split("#")[0] for key, asked in found.items() for text in [asked.text]}
    assert texts == {"square 0": "p0", "of the second": "p0", "square 1": "p1", "square 2": "p2"}
    assert not problems(out, "image_folder")
    assert any(
        "p0.png is listed twice; the objects of both entries" in line for line in notes(out, "image_folder")
    )
    assert "annotations.json: image 1 is listed twice" in notes(out, "image_folder")


def test_an_image_listed_twice_with_two_sizes_is_named(tmp_path):
    raw = coco_folder(
        tmp_path / "raw",
        images=lambda listed: [*listed, listed[0] | {"id": 7, "height": 50}],
        annotations=lambda objects: [
            *objects,
            objects[0] | {"id": 20, "image_id": 7, "expressions": ["lost"]},
        ],
    )
    out = make("image_folder", raw)
    assert set(said(out)) == {"square 0", "square 1", "square 2"}
    (line,) = problems(out, "image_folder")
    assert "p0.png is listed twice, with different sizes; the objects of image 7 are left out" in line


def test_two_images_of_one_id_lose_their_objects_by_name(tmp_path):
    raw = coco_folder(tmp_path / "raw", images=lambda listed: [listed[0], listed[1] | {"id": 0}, listed[2]])
    out = make("image_folder", raw)
    assert set(said(out)) == {"square 2"}
    lines = problems(out, "image_folder")
    assert (
        "annotations.json: image 0 is two images, p0.png and p1.png; they and their annotations are left out"
        in lines
    )


def test_a_bad_entry_costs_no_other(tmp_path):
    def images(listed):
        listed[0].pop("height")
        return [
            *listed,
            {"file_name": "no_id.png"},
            "nothing",
            {"id": [1]},
            listed[1] | {"id": 8, "width": 0},
        ]

    def annotations(objects):
        odd = {"image_id": 1, "category_id": 1}
        return [
            *objects,
            odd | {"id": 30},
            *({"id": 31 + i, "image_id": 2, "category_id": 77, "segmentation": SQUARE} for i in range(3)),
            odd | {"id": 40, "segmentation": [[200.0, 4, 220, 4, 220, 16]]},
            odd | {"id": 41, "segmentation": [[5.0, 5, 5, 5, 5, 5]]},
            odd | {"id": 42, "segmentation": [*SQUARE, [-9.0, -9, -2, -9, -2, -2]], "expressions": ["kept"]},
            odd | {"id": 43, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}},
            "nothing",
            {"id": 44},
            odd | {"id": 45, "category_id": [1], "segmentation": SQUARE},
        ]

    out = make("image_folder", coco_folder(tmp_path / "raw", images, annotations))
    found = said(out)
    assert set(found) == {"square 1", "square 2", "kept"}
    for mask in found.values():
        assert (mask == square()).all()
    lines = problems(out, "image_folder")
    for says in (
        "image 0 has no 'height'; it and its annotations are left out",
        "image 3 of the list has no id", "image 4 of the list has no id", "image 5 of the list has no id",
        "image 8 has an invalid 'width': 0",
        "object 30 has no mask: no segmentation",
        "an object has category 77, which is not in the file (3 times)",
        "an object has category [1], which is not in the file",
        "object 40 has no mask: polygon 0 covers no pixel",
        "object 41 has no mask: polygon 0 covers no pixel",
        "object 42: polygon 1 covers no pixel", "object 43 has no mask: its mask is empty",
        "annotation 11 of the list has no image_id", "annotation 12 of the list has no image_id",
    ):  # fmt: skip
        assert any(says in line for line in lines), says


def test_the_same_holds_for_refer_and_for_captions(tmp_path):
    objects = raw_trees.Objects(tmp_path / "raw", 8)
    refs = raw_trees.refs_of(objects, ("val", "testA", "testB"))
    del objects.images[0]["height"]
    one, other = objects.of(1001)[0], objects.of(1002)[0]
    objects.annotations += [other | {"id": one["id"]}, other | {"id": [5]}]
    del objects.of(1003)[0]["segmentation"]
    objects.write("refcoco")
    refs[-1]["ref_id"] = "last"
    raw_trees.write_refs(tmp_path / "raw", "refcoco", "unc", [*refs, "no ref"])
    out = make("refcoco", tmp_path / "raw")
    lines = problems(out, "refcoco")
    of_first = sum(ref["image_id"] == 1000 for ref in refs)
    for says in (
        "instances.json: image 1000 has no 'height'",
        f"a ref has image 1000, which is not in instances.json ({of_first} times)",
        f"object {one['id']} is two objects; refs to it are left out",
        "object [5]: its id is not an integer",
        "which has no mask: no segmentation",
        "ref last has a missing or invalid field: ref_id 'last'",
        f"ref {len(refs)} of the list has a missing or invalid field",
    ):
        assert any(says in line for line in lines), says
    for (_, number), asked in everything(out, "refcoco").items():
        (ref,) = (ref for ref in refs if int(number) in ref["sent_ids"])
        assert ref["ann_id"] != one["id"]
        assert (asked.mask == objects.truth([ref["ann_id"]])).all()


def test_captions_of_images_listed_twice_are_not_doubled(tmp_path):
    raw_trees.captions_tree(tmp_path / "raw", {"train2017": 3})
    path = tmp_path / "raw" / "annotations" / "captions_train2017.json"
    content = json.loads(path.read_text())
    content["images"].append(content["images"][0])
    del content["images"][1]["width"]
    content["annotations"].append({"id": 99, "image_id": 1002, "caption": None})
    path.write_text(json.dumps(content))
    out = make("coco_captions", tmp_path / "raw")
    index = records.read_index(records.find(out, "coco_captions"), "train")
    assert (index.image_ids, index.captions) == (["1000", "1002"], [2, 2])
    lines = problems(out, "coco_captions")
    assert any("image 1001 has no 'width'" in line for line in lines)
    assert any("caption 99 is empty or not a text" in line for line in lines)
    assert notes(out, "coco_captions") == ["captions_train2017.json: image 1000 is listed twice"]


# Folders


def test_common_names_of_splits_are_known_and_what_is_not_read_is_named(tmp_path):
    for split in ("Train", "valid", "testing"):
        coco_folder(tmp_path / "raw" / split, name="_annotations.coco.json")
    photograph(tmp_path / "raw" / "beside.jpg")
    photograph(tmp_path / "raw" / "extras" / "more" / "a.jpg")
    out = make("image_folder", tmp_path / "raw")
    directory = records.find(out, "image_folder")
    assert records.splits_of(directory) == ["train", "val", "test"]
    assert len(everything(out, "image_folder")) == 9
    lines = problems(out, "image_folder")
    assert len(lines) == 2
    assert any("extras: this folder is not read (1 images)" in line for line in lines)
    assert any("1 images next to the folders Train, valid, testing are not read" in line for line in lines)
    (tmp_path / "raw" / "val").mkdir()
    with pytest.raises(UserError, match="val and valid are both the split val; merge or rename one"):
        make("image_folder", tmp_path / "raw")


def shard_of(directory):
    return next(path for path in directory.iterdir() if "train.array_record" in path.name)


def flip(path):
    content = bytearray(path.read_bytes())
    content[3000:6000:500] = bytes(255 - byte for byte in content[3000:6000:500])
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda directory: shard_of(directory).unlink(),
        lambda directory: os.truncate(shard_of(directory), 50_000),
        lambda directory: flip(shard_of(directory)),
        lambda directory: (directory / "features.json").write_text("{"),
        lambda directory: (directory / "dataset_info.json").write_text("{"),
    ],
)
def test_a_damaged_dataset_is_one_line_that_names_it(tmp_path, damage):
    out = make("image_folder", coco_folder(tmp_path / "raw"))
    directory = epath.Path(records.find(out, "image_folder"))
    damage(directory)
    records.open_split.cache_clear()
    with pytest.raises(UserError, match=f"{directory}.* damaged.*prepare it again") as caught:
        records.read_expression(*records.Items(str(directory), "train", "expressions")[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_texts_are_read_in_the_encoding_that_their_mark_names(tmp_path, encoding):
    raw = coco_folder(tmp_path / "raw")
    (raw / "p0.txt").write_bytes("ein Mädchen\r\nпарк".encode(encoding))
    content = (raw / "annotations.json").read_text()
    (raw / "annotations.json").write_bytes(content.encode(encoding))
    (raw / "p1.txt").write_bytes("ein Mädchen".encode("latin-1"))
    out = make("image_folder", raw)
    items = records.Items(records.find(out, "image_folder"), "train", "captions")
    assert [items[i][0]["captions"][items[i][1]].decode() for i in range(len(items))] == [
        "ein Mädchen",
        "парк",
    ]
    assert set(said(out)) == {"square 0", "square 1", "square 2"}
    (line,) = problems(out, "image_folder")
    assert "p1.txt is not text in UTF-8" in line


def test_names_with_spaces_brackets_and_accents_are_found(tmp_path):
    raw = tmp_path / "my images [new] {1}"
    coco_folder(raw, images=lambda listed: [listed[0] | {"file_name": "café 1 [x].png"}, *listed[1:]])
    (raw / "p0.png").rename(raw / "cafe\u0301 1 [x].png")  # as a Mac writes it
    out = make("image_folder", raw)
    assert set(said(out)) == {"square 0", "square 1", "square 2"}
    assert not problems(out, "image_folder")


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("drawn", ["as stored", "as turned"])
def test_objects_lie_on_the_image_whose_size_they_fit(tmp_path, orientation, drawn):
    """The square's mask, cut out of what the reader shows, is what the annotator saw there."""
    raw = coco_folder(tmp_path / "raw")
    photograph(raw / "p0.png", orientation)
    stored = Image.open(raw / "p0.png")
    turns = {
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    shown = stored.transpose(turns[orientation]) if drawn == "as turned" and orientation in turns else stored
    content = json.loads((raw / "annotations.json").read_text())
    content["images"][0] |= {"width": shown.width, "height": shown.height}
    (raw / "annotations.json").write_text(json.dumps(content))
    out = make("image_folder", raw)
    if orientation in (2, 3, 4):
        assert set(said(out)) == {"square 1", "square 2"}
        assert any(
            f"p0.png has EXIF orientation {orientation}, and its size does not tell" in line
            for line in problems(out, "image_folder")
        )
        return
    items = records.Items(records.find(out, "image_folder"), "train", "expressions")
    record, number = next(items[i] for i in range(len(items)) if items[i][0]["image_id"] == b"p0")
    mask = records.read_expression(record, number).mask
    image = records.decode_image(record)
    assert image.shape[:2] == mask.shape
    assert (mask == square((shown.height, shown.width))).all()
    assert (image[mask == 1] == np.asarray(shown)[mask == 1]).all()


def test_an_annotation_of_each_kind_in_two_frames_is_named(tmp_path):
    raw = coco_folder(tmp_path / "raw")
    photograph(raw / "p0.png", 6)  # annotations.json is of the pixels as stored
    shape = {"label": "x", "points": [[1, 1], [9, 1], [9, 9]]}
    for stem in ("p0", "p1"):
        (raw / f"{stem}.json").write_text(json.dumps({"text": f"{stem} too", "shapes": [shape]}))
    out = make("image_folder", raw)
    assert set(said(out)) == {"square 0", "square 1", "square 2", "p1 too"}
    (line,) = problems(out, "image_folder")
    assert "p0.json is not read: it is for the image after its EXIF orientation is applied" in line
