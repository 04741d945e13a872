"""Raw trees through prepare_data.py and back: counts, pixels, oddities, interruption."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import raw_trees
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image
from test_shapes import reference

from genmask_jax.data import masks
from genmask_jax.data.prepared import records
from genmask_jax.data.prepared.builders import open_builders
from genmask_jax.data.prepared.prepare import prepare
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import read_image

SCRIPT = pathlib.Path(__file__).parents[3] / "launch" / "prepare_data.py"
FAMILY = {
    "refcoco:unc": ("refcoco", ("val", "testA", "testB"), 0),
    "refcoco:google": ("refcoco", ("val", "test"), 2),
    "refcocoplus:unc": ("refcoco+", ("val", "testA", "testB"), 0),
    "refcocog:umd": ("refcocog", ("val", "test"), 5),
    "refcocog:google": ("refcocog", ("val",), 1),
}


def everything(out, name, **options):
    """Every expression of every split, by split and id."""
    directory = records.find(out, name)
    found = {}
    for split in records.splits_of(directory):
        items = records.Items(directory, split, "expressions", **options)
        for i in range(len(items)):
            asked = records.read_expression(*items[i])
            assert (split, asked.id) not in found
            found[split, asked.id] = asked
    return found


def problems(out, name):
    return (pathlib.Path(records.find(out, name)) / "problems.txt").read_text().splitlines()


def test_masks_are_checked_when_they_are_prepared_and_not_when_they_are_read(benchmark_data, monkeypatch):
    def check(counts, size):
        raise AssertionError("a loop over the runs of every mask that is read")

    monkeypatch.setattr(masks, "need_valid", check)
    assert any(asked.mask.any() for asked in everything(benchmark_data.out, "refcoco:unc").values())


@pytest.mark.parametrize("name", FAMILY)
def test_refcoco_comes_back_pixel_by_pixel(benchmark_data, name):
    objects, (_, held_out, shift) = benchmark_data.objects, FAMILY[name]
    found = everything(benchmark_data.out, name)
    refs = raw_trees.refs_of(objects, held_out, shift)
    expected = {(ref["split"], str(s["sent_id"])): (ref, s) for ref in refs for s in ref["sentences"]}
    assert set(found) == set(expected)
    for key, asked in found.items():
        ref, sentence = expected[key]
        assert asked.text == sentence["sent"].lower()
        assert (asked.mask == objects.truth([ref["ann_id"]])).all()
    kinds = {type(a["segmentation"]) for a in objects.annotations}
    assert kinds == {list, dict}
    assert {type(a["segmentation"]["counts"]) for a in objects.annotations if a["iscrowd"]} == {list, str}


def test_grefcoco_has_unions_and_empty_masks(benchmark_data):
    objects = benchmark_data.objects
    found = everything(benchmark_data.out, "grefcoco")
    refs = raw_trees.generalized(objects, ("val", "testA", "testB"))
    assert len(found) == len(refs)
    for ref in refs:
        mask = found[ref["split"], str(ref["sentences"][0]["sent_id"])].mask
        if ref["no_target"]:
            assert not mask.any()
        else:
            assert (mask == objects.truth(ref["ann_id"])).all()
    directory = records.find(benchmark_data.out, "grefcoco")
    counts = [records.read_index(directory, split).counts for split in records.splits_of(directory)]
    assert sum(c["no-target"] for c in counts) == sum(ref["no_target"] for ref in refs)
    assert sum(c["multi-target"] for c in counts) == sum(len(ref["ann_id"]) > 1 for ref in refs)
    assert sum(c["objects"] for c in counts) == len(objects.annotations)


def test_reasonseg_comes_back_pixel_by_pixel(benchmark_data):
    found = everything(benchmark_data.out, "reasonseg")
    raw = benchmark_data.raw / "reasonseg"
    assert sum("#" not in name for _, name in found) == len(benchmark_data.reasonseg) == 24
    ignored = 0
    for where, annotation in benchmark_data.reasonseg.items():
        split, stem = where.split("/")
        width, height = Image.open(raw / f"{where}.jpg").size
        mask = reference(annotation["shapes"], (height, width))
        ignored += int((mask == 255).sum())
        for i, text in enumerate(annotation["text"]):
            asked = found[split, stem if i == 0 else f"{stem}#{i}"]
            assert asked.text == text
            assert (asked.mask == mask).all()
    assert ignored
    first = everything(benchmark_data.out, "reasonseg", first_only=True)
    assert sorted(first) == sorted(key for key in found if "#" not in key[1])


def test_images_are_the_publishers_own_files_and_captions_are_theirs(benchmark_data):
    directory = records.find(benchmark_data.out, "coco_captions")
    items = records.Items(directory, "train", "captions")
    assert len(items) == 60
    raw = json.loads((benchmark_data.raw / "coco" / "annotations" / "captions_train2017.json").read_text())
    said = {(str(a["image_id"]), a["caption"].strip()) for a in raw["annotations"]}
    for i in range(len(items)):
        record, number = items[i]
        image_id = record["image_id"].decode()
        said.remove((image_id, record["captions"][number].decode()))
        file = benchmark_data.raw / "coco" / "train2017" / f"{int(image_id):012d}.jpg"
        assert record["image"] == file.read_bytes()
    assert not said


def test_an_image_folder_has_captions_and_both_kinds_of_masks(benchmark_data):
    found = everything(benchmark_data.out, "image_folder")
    texts = {asked.text for asked in found.values()}
    assert {"the corner", "shape"} < texts
    corner = next(asked.mask for asked in found.values() if asked.text == "the corner")
    assert corner[10, 30] == 1
    assert corner[30, 10] == 0
    raw = json.loads((benchmark_data.raw / "folder" / "annotations.json").read_text())
    size = {image["id"]: (image["height"], image["width"]) for image in raw["images"]}
    for (_, name), asked in found.items():
        if asked.text == "shape":  # all that have nothing else said of them
            own = [a for a in raw["annotations"] if f"p{a['image_id']}" == name.split("#")[0]]
            meant = [a for a in own if "expressions" not in a]
            masks = [raw_trees.union(a["segmentation"], size[a["image_id"]]) for a in meant]
            assert (asked.mask == np.any(masks, axis=0)).all()
    assert records.read_index(records.find(benchmark_data.out, "image_folder"), "val").counts["images"] == 2


def odd_tree(raw):
    """RefCOCO with one of everything that can be wrong; returns what must be said of it."""
    objects = raw_trees.Objects(raw, 14)
    refs = raw_trees.refs_of(objects, ("val", "testA", "testB"))
    by_image = {}
    for ref in refs:
        by_image.setdefault(ref["image_id"], ref)
    said = []

    def wrong(image_id, says):
        said.append(says)
        return by_image[image_id]

    (objects.folder / objects.images[0]["file_name"]).unlink()
    wrong(1000, f"missing: {objects.folder / objects.images[0]['file_name']}")
    path = objects.folder / objects.images[1]["file_name"]
    path.write_bytes(path.read_bytes()[:700])
    wrong(1001, f"{path}: this image cannot be read")
    objects.images[2]["height"] += 1
    wrong(1002, "the image has")
    path = objects.folder / objects.images[4]["file_name"]
    path.write_bytes(b"<html>not found</html>")
    wrong(1004, f"{path}: this image cannot be read (it is a web page, perhaps of a failed download)")
    wrong(1005, "refers to object 1, which is not in instances.json")["ann_id"] = 1
    wrong(1006, "has image 9, which is not in instances.json")["image_id"] = 9
    by_id = {annotation["id"]: annotation for annotation in objects.annotations}
    ref = wrong(1007, "has no mask: polygon 0 has 2 points")
    by_id[ref["ann_id"]]["segmentation"] = [[1, 2, 3, 4]]
    ref = wrong(1008, "a mask of 5 x 5 pixels")
    by_id[ref["ann_id"]]["segmentation"] = {"size": [5, 5], "counts": [25]}
    number = by_image[1013]["sentences"][0]["sent_id"]
    wrong(1009, f"sentence {number} occurs twice in train")["sentences"][0]["sent_id"] = number
    by_image[1009]["split"] = "train"
    wrong(1010, "is empty")["sentences"][0]["sent"] = "  "
    del wrong(1011, "has a missing or invalid field: 'split'")["split"]
    wrong(1012, "which is in another image")["ann_id"] = by_image[1013]["ann_id"]
    wrong(1003, "has a missing or invalid field")["sentences"] = None
    objects.write("refcoco")
    raw_trees.write_refs(raw, "refcoco", "unc", refs)
    return said


def test_whatever_is_wrong_is_named_and_left_out_or_fatal(tmp_path, capsys):
    said = odd_tree(tmp_path / "raw")
    raw, out = epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "out")
    with pytest.raises(UserError, match=r"--strict: .* \(and \d+ more\)"):
        prepare("refcoco", raw, out, strict=True, num_workers=1)
    prepare("refcoco", raw, out, num_workers=1)
    lines = problems(out, "refcoco")
    for says in said:
        assert any(says in line for line in lines), says
    printed = capsys.readouterr().out
    assert f"{len(lines)} items were left out" in printed
    found = everything(out, "refcoco")
    assert found
    texts = {asked.text for asked in found.values()}
    assert all(text.strip() for text in texts)


def test_strict_stops_at_a_broken_image_and_keeps_what_was_done(tmp_path):
    objects = raw_trees.Objects(tmp_path / "raw", 3)
    for a in objects.annotations:
        if isinstance(a["segmentation"], list):
            a["segmentation"] = [p for p in a["segmentation"] if len(p) >= 6]
    objects.write("refcoco")
    raw_trees.write_refs(tmp_path / "raw", "refcoco", "unc", raw_trees.refs_of(objects, ("val",)))
    path = objects.folder / objects.images[1]["file_name"]
    whole = path.read_bytes()
    path.write_bytes(whole[:500])
    raw, out = epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "out")
    with pytest.raises(UserError, match=f"--strict: {path}: this image cannot be read"):
        prepare("refcoco", raw, out, strict=True, num_workers=1)
    path.write_bytes(whole)
    prepare("refcoco", raw, out, strict=True, num_workers=1)
    assert not problems(out, "refcoco")


def test_strict_holds_for_what_was_made_without_it(tmp_path):
    raw_trees.captions_tree(tmp_path / "raw", {"train2017": 3})
    (tmp_path / "raw" / "train2017" / f"{1001:012d}.jpg").unlink()
    raw, out = epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "out")
    prepare("coco_captions", raw, out, num_workers=1)
    with pytest.raises(UserError, match="--strict: an image is missing"):
        prepare("coco_captions", raw, out, strict=True, num_workers=1)


def test_a_split_without_images_is_left_out_and_said(tmp_path):
    raw_trees.captions_tree(tmp_path / "raw", {"train2017": 3, "val2017": 2})
    raw, out = epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "out")
    for image in (tmp_path / "raw" / "val2017").iterdir():
        image.write_bytes(b"broken")
    prepare("coco_captions", raw, out / "1", num_workers=1)
    assert records.splits_of(records.find(out / "1", "coco_captions")) == ["train"]
    assert sum("it is not an image" in line for line in problems(out / "1", "coco_captions")) == 2
    shutil.rmtree(tmp_path / "raw" / "val2017")
    prepare("coco_captions", raw, out / "2", num_workers=1)
    assert "the split val has no image" in problems(out / "2", "coco_captions")
    for image in (tmp_path / "raw" / "train2017").iterdir():
        image.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"none of the [0-9]+ images in the raw data is valid"):
        prepare("coco_captions", raw, out / "3", num_workers=1)
    shutil.rmtree(tmp_path / "raw" / "train2017")
    with pytest.raises(UserError, match=r"no usable image; an image is missing"):
        prepare("coco_captions", raw, out / "4", num_workers=1)


def test_of_several_objects_one_without_a_mask_is_left_out_alone(tmp_path):
    objects = raw_trees.Objects(tmp_path / "raw", 8)
    refs = raw_trees.generalized(objects, ("val", "testA", "testB"))
    several = next(ref for ref in refs if len(ref["ann_id"]) > 2)
    bad = next(a for a in objects.annotations if a["id"] == several["ann_id"][0])
    bad["segmentation"] = [[1, 2, 3, 4]]
    tiny = next(a for a in objects.annotations if a["id"] == several["ann_id"][1])
    tiny["segmentation"] = [[5.1, 5.1, 5.2, 5.1, 5.2, 5.2]]
    objects.write("grefcoco")
    raw_trees.write_grefs(tmp_path / "raw", refs)
    prepare("grefcoco", epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "out"), num_workers=1)
    found = everything(tmp_path / "out", "grefcoco")
    rest = found[several["split"], str(several["sentences"][0]["sent_id"])]
    assert (rest.mask == objects.truth(several["ann_id"][2:])).all()
    (alone,) = (ref for ref in refs if ref["ann_id"] == [tiny["id"]])
    assert (alone["split"], str(alone["sentences"][0]["sent_id"])) not in found
    assert sum("polygon 0 covers no pixel" in line for line in problems(tmp_path / "out", "grefcoco")) == 2
    assert sum(asked.no_target for asked in found.values()) == 8


def test_a_users_mistakes_are_named(tmp_path):
    raw_trees.folder_tree(tmp_path / "raw", 4)
    path = tmp_path / "raw" / "annotations.json"
    content = json.loads(path.read_text())
    good = content["annotations"][0]
    odd = {"id": 900, "image_id": 1, "category_id": 1, "segmentation": good["segmentation"]}
    content["annotations"] += [
        odd | {"expressions": "a red cup"},
        odd | {"id": 901, "expressions": ["  "]},
        odd | {"id": "f3-aa", "expressions": ["x"]},
        odd | {"id": 902, "expressions": ["x"], "segmentation": [[0, 0, 1e10, 0, 5, 5]]},
        odd | {"id": 903, "image_id": 77},
        odd | {"id": 904, "expressions": ["Blue cup", "blue cup", ""]},
        odd | {"id": 904, "expressions": ["again"]},
    ]
    content["images"].append({"id": 5, "file_name": "gone.png", "height": 5, "width": 5})
    path.write_text(json.dumps(content))
    shapes = ({"label": "a"}, {"label": "b", "points": 5}, {"label": "c", "points": [[1, 1], [9, 1], [9, 9]]})
    said = json.dumps({"text": "said once", "shapes": shapes})
    (tmp_path / "raw" / "p0.json").write_bytes(said.encode("utf-8-sig"))
    (tmp_path / "raw" / "p2.json").write_text(json.dumps({"text": 5, "shapes": shapes}))
    (tmp_path / "raw" / "p9.txt").write_text("nothing")
    prepare("image_folder", epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "out"), num_workers=1)
    lines = "\n".join(problems(tmp_path / "out", "image_folder"))
    for says in (
        "object 901: some of its expressions are not texts", "object 904: some of its expressions",
        "object 904 occurs twice",
        "object f3-aa: its id is not an integer",
        "object 902 has no mask: polygon 0 has points", "an annotation has image_id 77, which is not",
        "image gone.png is missing", "shape 0 (a) has no points", "shape 1 (b) has no points",
        "p2.json has no text", "p9.txt is an annotation without an image",
    ):  # fmt: skip
        assert says in lines, says
    texts = {asked.text for asked in everything(tmp_path / "out", "image_folder").values()}
    assert {"a red cup", "said once", "blue cup"} <= texts
    assert not texts & {"", "again"}


@pytest.mark.parametrize(("orientation", "turned"), [(6, (1, 0)), (3, (2, 0)), (5, (1, 1))])
def test_images_are_turned_as_their_exif_says_where_annotations_are_of_what_is_seen(
    tmp_path, orientation, turned
):
    raw_trees.reasonseg_tree(tmp_path / "raw", {"val": 1})
    raw_trees.captions_tree(tmp_path / "raw", {"val2017": 1})
    stored = {}
    for path in (
        tmp_path / "raw" / "val" / "0000_val.jpg",
        tmp_path / "raw" / "val2017" / f"{1000:012d}.jpg",
    ):
        image = Image.open(path)
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(path, exif=exif)
        stored[path.parent.name] = np.asarray(Image.open(path))
    for name in ("reasonseg", "coco_captions"):
        prepare(name, epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "out"), num_workers=1)
    record, number = records.Items(records.find(tmp_path / "out", "reasonseg"), "val", "expressions")[0]
    quarters, mirrored = turned
    expected = np.rot90(stored["val"], -quarters)
    expected = expected[:, ::-1] if mirrored else expected
    assert (records.decode_image(record) == expected).all()
    assert (read_image(tmp_path / "raw" / "val" / "0000_val.jpg") == expected).all()
    assert records.read_expression(record, number).mask.shape == expected.shape[:2]
    # COCO's annotations are of the pixels as they are stored.
    record, _ = records.Items(records.find(tmp_path / "out", "coco_captions"), "val", "captions")[0]
    assert (records.decode_image(record) == stored["val2017"]).all()


@pytest.mark.parametrize("orientation", [1, 6])
def test_reading_as_the_docs_show_gives_images_that_fit_their_masks(tmp_path, monkeypatch, orientation):
    raw_trees.reasonseg_tree(tmp_path / "raw", {"val": 2})
    path = tmp_path / "raw" / "val" / "0000_val.jpg"
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    prepare("reasonseg", epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "data"), num_workers=1)
    monkeypatch.chdir(tmp_path)
    text = (SCRIPT.parents[1] / "docs" / "benchmarks.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "open_records" in block)
    shown = {}
    exec(code, shown)
    size = (shown["record"]["height"], shown["record"]["width"])
    assert shown["image"].shape[:2] == shown["expression"].mask.shape == size
    assert (shown["image"] == read_image(path)).all()


def hashes(folder):
    files = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture
def long_tree(tmp_path):
    """Some 1,500 images, most of them links, in six shards."""
    raw_trees.captions_tree(tmp_path / "raw", {"train2017": 4})
    folder, path = (
        tmp_path / "raw" / "train2017",
        tmp_path / "raw" / "annotations" / "captions_train2017.json",
    )
    content = json.loads(path.read_text())
    for i in range(1500):
        image = content["images"][i % 4]
        name = f"{5000 + i:012d}.jpg"
        os.link(folder / image["file_name"], folder / name)
        content["images"].append(image | {"id": 5000 + i, "file_name": name})
        content["annotations"].append({"id": 9000 + i, "image_id": 5000 + i, "caption": f"number {i}"})
    path.write_text(json.dumps(content))
    return tmp_path


def test_killed_and_started_again_it_ends_with_the_same_files(long_tree):
    raw, out = long_tree / "raw", long_tree / "out"
    prepare("coco_captions", epath.Path(raw), epath.Path(long_tree / "whole"), num_workers=1)
    command = [sys.executable, SCRIPT, "coco_captions", f"--raw={raw}", f"--out={out}", "--num_workers=2"]
    work = out / "coco_captions" / "1.0.0.incomplete"
    killed_at = []
    for shards in (1, 3):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and len(list(work.glob("*-of-00006"))) < shards:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        killed_at.append(len(list(work.glob("*-of-00006"))))
    assert killed_at[0] < 6, "it was done before it could be killed"
    subprocess.run(command, check=True, capture_output=True)
    assert hashes(out) == hashes(long_tree / "whole")
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "already prepared" in done.stdout
    assert "1,504" in done.stdout


def test_what_was_begun_with_other_raw_data_is_not_gone_on_with(tmp_path):
    raw_trees.captions_tree(tmp_path / "raw", {"train2017": 3})
    raw, out = epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "out")
    prepare("coco_captions", raw, out, num_workers=1)
    final = tmp_path / "out" / "coco_captions" / "1.0.0"
    shutil.move(final, final.with_name("1.0.0.incomplete"))
    (final.with_name("1.0.0.incomplete") / "plan.sha256").write_text("another")
    with pytest.raises(UserError, match="started with other raw data"):
        prepare("coco_captions", raw, out, num_workers=1)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("refcoco", r"there is no refcoco/refs\(unc\)\.p"),
        ("grefcoco", r"there is no grefcoco/grefs\(unc\)\.json"),
        ("reasonseg", "there is no folder train or val or test"),
        ("coco_captions", r"there is no annotations/captions_train2017\.json"),
        ("image_folder", "the folder is empty"),
    ],
)
def test_an_empty_raw_folder_gets_one_line(tmp_path, name, says):
    with pytest.raises(UserError, match=says):
        prepare(name, epath.Path(tmp_path), epath.Path(tmp_path / "out"), num_workers=1)
    assert not (tmp_path / "out").exists()


def test_reading_needs_no_tensorflow(benchmark_data):
    program = f"""
import sys
from genmask_jax.config import DataConfig
from genmask_jax.data.sources import generate_source, segment_source
config = DataConfig(name="refcoco_joint", generate="coco_captions", path={str(benchmark_data.out)!r})
segment_source(config, "train")[0], generate_source(config, "train")[0]
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("way", ["beam", "tfds"])
def test_tfds_own_ways_make_the_same_examples(benchmark_data, tmp_path, way):
    raw, out = epath.Path(benchmark_data.raw / "reasonseg"), epath.Path(tmp_path)
    if way == "beam":
        pytest.importorskip("apache_beam")
        prepare("reasonseg", raw, out, beam="--runner=DirectRunner")
    else:
        (builder,) = open_builders("reasonseg", raw, out)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(raw)))
        prepare("reasonseg", raw, out)  # adds the index
    ours, theirs = everything(benchmark_data.out, "reasonseg"), everything(out, "reasonseg")
    assert ours.keys() == theirs.keys()
    for key, asked in ours.items():
        assert (asked.mask == theirs[key].mask).all()
        assert asked.text == theirs[key].text
