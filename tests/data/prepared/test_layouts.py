"""Folders as tools and people lay them out: what is read, and what is said of one that cannot be read."""

import importlib.util
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from etils import epath
from PIL import Image

from genmask_jax.data import masks
from genmask_jax.data.prepared.inspect import inspect
from genmask_jax.data.raw_formats import folder, folder_names
from genmask_jax.data.raw_formats.folder_names import folder_role
from genmask_jax.data.raw_formats.pairs import find_pairs
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import UserError

ROOT = pathlib.Path(__file__).parents[3]
spec = importlib.util.spec_from_file_location("draw_layouts", ROOT / "docs" / "draw_layouts.py")
layouts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(layouts)
SCENES = layouts.make_scenes()
POLYGONS = (
    "yolo",
    "coco",
    "cvat",
    "roboflow_coco",
    "labelme",
    "labelme_output",
    "labelme_coco",
    "label_studio_coco",
)
"""Layouts of polygons, whose edges are rasterised in other ways than Pillow's."""


def read(raw, format=""):
    """Every expression of a folder, (split, image, text) -> mask bool [H, W]; and the plan."""
    plan = folder.read(epath.Path(raw), format)
    found = {}
    for split, images in plan.splits.items():
        for image in images:
            example = image.example()
            size = (example["height"], example["width"])
            for said in example["expressions"]:
                mask = masks.decode(example["targets"][said["target"]]["counts"], size)
                found[split, image.image_id.split("/")[-1], said["text"]] = mask.astype(bool)
    return found, plan


def write(raw, *paths):
    """Small files at some paths: images, masks of 0 and 255, and other files that are empty."""
    for i, path in enumerate(paths):
        (raw / path).parent.mkdir(parents=True, exist_ok=True)
        if path.lower().endswith((".jpg", ".png")):
            values = np.random.default_rng(i).integers(0, 2, (8, 8), np.uint8) * 255
            Image.fromarray(values).save(raw / path)
        else:
            (raw / path).write_text("")


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_what_tools_write_comes_back(tmp_path, name):
    layouts.LAYOUTS[name](tmp_path, SCENES)
    found, plan = read(tmp_path)
    texts = {"masks": {"the road": "road"}, "metadata": {"the red car": "car"}}
    asked = texts.get(name, {text: text for text in layouts.CLASSES})
    assert found.keys() == {(scene.split, scene.name, text) for scene in SCENES for text in asked}
    for (_, image, text), mask in found.items():
        truth = next(scene for scene in SCENES if scene.name == image).mask(asked[text])
        if name in POLYGONS:
            assert (mask & truth).sum() / (mask | truth).sum() > 0.8
        else:
            np.testing.assert_array_equal(mask, truth)
    assert not plan.problems.left_out
    assert set(plan.classes) == set(asked)


@pytest.mark.parametrize(
    ("image", "annotation"),
    [
        ("img_dir/train/a.jpg", "ann_dir/train/a.png"),
        ("Images/a.JPG", "Masks/a.PNG"),
        ("IMGS/a.jpg", "GT/a.png"),
        ("image/a.jpg", "label/a.png"),
        ("images/a.jpg", "ground_truth/a.png"),
        ("images/a.jpg", "Ground Truth/a_groundtruth.png"),
        ("images/a.jpg", "labels_png/a.png"),
        ("train/a.png", "train_labels/a_L.png"),
        ("train/a.png", "trainannot/a.png"),
        ("train_images/a.jpg", "train_masks/a.png"),
        ("TrainImages/a.jpg", "TrainAnnot/a.png"),
        ("images/train2017/a.jpg", "annotations/train2017/a.png"),
        ("701_StillsRaw_full/a.png", "LabeledApproved_full/a_L.png"),
        ("JPEGImages/a.jpg", "SegmentationClassPNG/a.png"),
        ("leftImg8bit/train/x/a_leftImg8bit.png", "gtFine/train/x/a_gtFine_labelIds.png"),
        ("ISIC-2017_Training_Data/a.jpg", "ISIC-2017_Training_Part1_GroundTruth/a_segmentation.png"),
        ("images/a.jpg", "masks/a_segmentation.png"),
        ("a.jpg", "a_segmentation.png"),
        ("a.jpg", "a mask.png"),
        ("photos/a.jpg", "segmentation_masks/a.png"),
        ("images/train/a.jpg", "masks/a.png"),
        ("images/img_001.jpg", "masks/mask_001.png"),
    ],
)
def test_images_and_annotations_are_paired_from_wherever_they_lie(tmp_path, image, annotation):
    write(tmp_path, image, annotation)
    (pair,) = find_pairs(epath.Path(tmp_path), (".png",), Problems()).pairs
    assert (pair.image, pair.annotation) == (epath.Path(tmp_path / image), epath.Path(tmp_path / annotation))
    assert pair.split == ("train" if "train" in image.lower() and "ISIC" not in image else "")


PAIRS = {
    "a mask of a missing image": (
        "images/scan.jpg images/scan_0.jpg images/scan_1.jpg masks/scan.png masks/scan_0.png "
        "masks/scan_1.png masks/scan_9.png",
        {"scan": "scan", "scan_0": "scan_0", "scan_1": "scan_1"},
        "scan_9",
    ),
    "numbers of images after the ending": (
        "leaf.jpg leaf_0.jpg leaf_1.jpg leaf_mask.png leaf_mask_0.png leaf_mask_1.png leaf_mask_9.png",
        {"leaf": "leaf_mask", "leaf_0": "leaf_mask_0", "leaf_1": "leaf_mask_1"},
        "leaf_mask_9",
    ),
    "numbers of parts beside numbers of images": (
        "leaf.jpg leaf_1.jpg leaf_mask.png leaf_mask_1.png leaf_mask_2.png leaf_1_mask.png",
        {"leaf": "leaf_mask leaf_mask_1 leaf_mask_2", "leaf_1": "leaf_1_mask"},
        "",
    ),
    "numbers of parts in brackets": (
        "images/a.jpg images/b.jpg masks/a.png masks/a (1).png masks/b (1).png masks/b (2).png",
        {"a": "a|a (1)", "b": "b (1)|b (2)"},
        "",
    ),
    "numbers of images in brackets": (
        "images/a (1).jpg masks/a (1).png masks/a (1)_1.png masks/a (2).png",
        {"a (1)": "a (1)|a (1)_1"},
        "a (2)",
    ),
    "images that are named like masks": (
        "images/with_mask_0.jpg images/0-with-mask.jpg images/scan_gt0.jpg masks/with_mask_0.png "
        "masks/0-with-mask.png masks/scan_gt0_mask.png",
        {"with_mask_0": "with_mask_0", "0-with-mask": "0-with-mask", "scan_gt0": "scan_gt0_mask"},
        "",
    ),
    "an image that is named like the mask of another": (
        "images/man.jpg images/man_mask.jpg masks/man.png masks/man_mask.png",
        {"man": "man", "man_mask": "man_mask"},
        "",
    ),
    "masks in the folder of images": ("images/man.jpg images/man_mask.png", {"man": "man_mask"}, ""),
    "a folder of masks for each image": (
        "images/a.jpg images/b.jpg masks/a/0.png masks/a/1.png masks/b/0.png",
        {"a": "0 1", "b": "0"},
        "",
    ),
    "a folder for each image and its masks": (
        "x/images/x.jpg x/masks/1f.png x/masks/2e.png y/images/y.jpg y/masks/3d.png",
        {"x": "1f 2e", "y": "3d"},
        "",
    ),
    "VOC with more masks": ("JPEGImages/a.jpg SegmentationClassAug/a.png", {"a": "a"}, ""),
    "pictures of masks": (
        "images/a.jpg masks/a.png masks/a_vis.png a_label_vis.png predictions/a.png images/night_vis.jpg "
        "masks/night_vis.png",
        {"a": "a", "night_vis": "night_vis"},
        "",
    ),
}  # fmt: skip
"""Files, the masks of each image (joined with | where names have spaces), and a mask without an image."""


@pytest.mark.parametrize("case", PAIRS)
def test_masks_belong_to_the_image_that_their_names_name(tmp_path, case):
    paths, belong, lost = PAIRS[case]
    write(tmp_path, *(f"{path}{end}" for path, end in re.findall(r"(\S.*?)(\.jpg|\.png)", paths)))
    tree = find_pairs(epath.Path(tmp_path), (".png",), Problems())
    found = {pair.image.stem: {path.stem for path in pair.annotations} for pair in tree.pairs}
    assert found == {image: set(masks.split("|" if "(" in masks else " ")) for image, masks in belong.items()}
    assert " ".join(path.stem for path in tree.unpaired) == lost


def test_pictures_of_masks_are_reported_in_a_line_for_each_kind(tmp_path):
    for i in range(3):
        write(tmp_path, f"images/{i}.jpg", *(f"masks/{i}{end}.png" for end in ("", "_vis", "_color")))
        write(tmp_path, f"{i}_label_vis.png", f"predictions/{i}.png")
    (tmp_path / "phrases.txt").write_text("the leaf")
    found, plan = read(tmp_path)
    assert len(found) == 3
    assert plan.problems.left_out == []
    unread = [line.split(": ", 1)[1] for line in plan.problems.notes if "are not read" in line]
    assert sorted(unread) == [
        "3 files *_label_vis are not read; they are pictures of annotations",
        "3 files *_vis are not read; they are pictures of annotations",
        "3 files masks/*_color.png are not read; masks/*.png fit black and white better",
        "3 files predictions/ are not read; they are predictions",
    ]


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("ImageSets/Segmentation/Train.txt", "ImageSets/Segmentation/Validation.txt"),
        ("ImageSets/TRAIN.TXT", "ImageSets/dev.txt"),
        ("imagesets/segmentation/training.txt", "imagesets/segmentation/valid.txt"),
        ("train.txt", "Val.txt"),
    ],
)
def test_lists_of_splits_have_the_names_of_folders_in_any_case(tmp_path, train, val):
    write(tmp_path, *(f"images/{name}.jpg" for name in "abc"), *(f"masks/{name}.png" for name in "abc"))
    (tmp_path / "phrases.txt").write_text("the leaf")
    layouts.save(tmp_path / train, "c\n")
    layouts.save(tmp_path / val, "a\nb\n")
    found, _ = read(tmp_path)
    assert {key[:2] for key in found} == {("train", "c"), ("val", "a"), ("val", "b")}


@pytest.mark.parametrize(
    "name", ["SegmentationObject", "leaves", "class", "data", "2", "images2", "label tool", "шар", "_"]
)
def test_other_folders_say_nothing(name):
    said = folder_role(name)
    assert (said.images, said.annotations, said.split) == (False, False, "")


def test_files_of_one_stem_are_not_paired_by_stem_alone(tmp_path):
    write(tmp_path, "x/images/1.jpg", "y/images/1.jpg", "z/masks/1.png")
    tree = find_pairs(epath.Path(tmp_path), (".png",), Problems())
    assert [pair.annotation for pair in tree.pairs] == [None, None]
    assert [path.name for path in tree.unpaired] == ["1.png"]


def test_a_tree_is_listed_once_for_all_layouts(tmp_path, monkeypatch):
    layouts.LAYOUTS["class_maps"](tmp_path, SCENES)
    walked, walk = [], folder_names._walk
    monkeypatch.setattr(
        folder_names, "_walk", lambda folder, *above: walked.append(folder) or walk(folder, *above)
    )
    read(tmp_path)
    assert walked.count(epath.Path(tmp_path)) == 1
    write(tmp_path, "images/train/new.jpg")
    assert len(folder_names.files_below(epath.Path(tmp_path))) == 2 * len(SCENES) + 2  # and not remembered


# What is said of a folder that cannot be read


def class_numbers(raw):
    for i, values in enumerate(([0, 1, 3, 3], [0, 0, 1, 3])):
        write(raw, f"images/{i}.jpg")
        layouts.save(raw / "masks" / f"{i}.png", np.array(values * 16, np.uint8).reshape(8, 8))


def lost_images(raw):
    layouts.save(raw / "annotations" / "instances.json", json.dumps(layouts.coco_content(SCENES)))
    write(raw, "images/other.jpg")


def boxes(raw):
    content = layouts.coco_content(SCENES)
    for annotation in content["annotations"]:
        annotation |= {"segmentation": [], "bbox": [1, 1, 5, 5]}
    layouts.save(raw / "annotations" / "boxes.json", json.dumps(content))
    layouts.save(raw / "images" / "street1.jpg", SCENES[0].image())


def yolo_boxes(raw):
    write(raw, "images/a.jpg")
    layouts.save(raw / "labels" / "a.txt", "0 0.5 0.5 0.2 0.2\n")


def label_studio_without_names(raw):
    layouts.label_studio(raw, SCENES)
    (raw / "project-1-at-2026-01-31.json").unlink()


def lost_masks(raw):
    layouts.metadata(raw, SCENES)
    shutil.rmtree(raw / "train" / "masks")
    shutil.rmtree(raw / "val")


SAID = {
    "class numbers without names": (
        class_numbers,
        "Seen: 2 images in images/; 2 PNGs in masks/ with values 0, 1, 3 and no class list. To make it "
        "readable, write the names of the classes to classes.txt",
    ),
    "a COCO file without its images": (
        lost_images,
        "Seen: 1 image in images/; a COCO file, annotations/instances.json, whose first image, street1.jpg, "
        "is not found. To make it readable, put the images that instances.json lists into images/",
    ),
    "a COCO file of boxes": (
        boxes,
        "a COCO file, annotations/boxes.json, without a mask. To make it readable, export segmentation masks",
    ),
    "a broken COCO file": (
        lambda raw: (write(raw, "a.jpg"), layouts.save(raw / "coco.json", '{"images": [], "annotations": [')),
        "coco.json cannot be read as JSON",
    ),
    "YOLO's boxes": (yolo_boxes, "1 YOLO file of boxes in labels/, without a polygon"),
    "brush labels without names": (
        label_studio_without_names,
        "9 PNGs of Label Studio's brush labels, but no image. To make it readable, add the JSON export",
    ),
    "metadata without its masks": (
        lost_masks, "metadata with a column of masks; train/masks/street1.png is named there but missing"
    ),
    "masks of other names": (
        lambda raw: write(raw, "images/a.jpg", "images/b.jpg", "masks/c.png", "masks/d.png"),
        "Seen: 2 images in images/; 2 PNGs in masks/ without an image of that name, such as masks/c.png",
    ),
    "a class list alone": (
        lambda raw: (write(raw, "images/a.jpg"), layouts.save(raw / "classes.txt", "a\nb\n")),
        "a class list of 2 names, but no PNG of class numbers",
    ),
    "labelme's files in a folder of their own": (
        lambda raw: (
            layouts.labelme(raw / "images", SCENES),
            [path.rename(raw / path.name) for path in (raw / "images").glob("*.json")],
        ),
        "3 JSON files, such as street1.json with shapes, without an image. To make it readable, put each "
        "X.json next to its image",
    ),
    "images alone": (
        lambda raw: write(raw, "a.jpg", "x/b.jpg"),
        "Seen: 2 images in the folder itself and x/. To make it readable, give each image, "
        "images/X.jpg, a mask of the same name, masks/X.png, and write the phrase of the masks to "
        "phrases.txt, the names of class numbers to classes.txt, or those of colours to label_colors.txt",
    ),
    "masks that are named as no mask is": (
        lambda raw: write(raw, "1/photo.jpg", "1/drawn.png", "2/photo-colour.png", "legend.txt"),
        "give each image, images/X.jpg, a mask of the same name, masks/X.png",
    ),
    "a zip inside": (
        lambda raw: write(raw, "photos.zip"),
        "Seen: no images; an archive, photos.zip. To make it readable, unpack photos.zip",
    ),
    "other files": (
        lambda raw: write(raw, "notes.docx", "x/y.csv"),
        "Seen: no images; 2 other files, such as notes.docx",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SAID)
def test_what_was_seen_is_said_where_nothing_fits(tmp_path, case):
    make, says = SAID[case]
    make(tmp_path)
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert says in str(error.value)
    assert "split" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("paths", "given", "says"),
    [
        (["photos.zip"], "photos.zip", "is an archive: unpack it"),
        (["photos.tar.gz"], "photos.tar.gz", "is an archive: unpack it"),
        (["a.JPG"], "a.JPG", "is an image: give the folder that holds the images"),
        (["notes.txt"], "notes.txt", "is a file: give the folder"),
        ([], "gone", "there is no such folder"),
        (["x/.DS_Store", "x/__MACOSX/._a.jpg"], "x", r"has only hidden files and leftovers, \.DS_Store and"),
    ],
)
def test_what_is_no_folder_of_images_is_named(tmp_path, paths, given, says):
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"\0")
    with pytest.raises(UserError, match=says):
        read(tmp_path / given)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="the folder is empty"):
        read(tmp_path)
    (tmp_path / "images" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="the folder is empty"):
        read(tmp_path)


def test_the_folder_above_is_named_where_images_alone_were_given(tmp_path):
    layouts.LAYOUTS["cvat"](tmp_path / "photos", SCENES)
    with pytest.raises(UserError) as error:
        read(tmp_path / "photos" / "images")
    assert f"--raw={tmp_path}/photos/images: no layout fits. Seen: 3 images. To" in str(error.value)
    assert f"give {tmp_path}/photos, if the masks are there" in str(error.value)


def test_a_sheet_in_a_new_folder_is_written_and_a_folder_is_none(tmp_path):
    layouts.masks(tmp_path / "raw", SCENES)
    inspect("image_folder", epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "new" / "sheet.png"))
    assert (tmp_path / "new" / "sheet.png").exists()
    with pytest.raises(UserError, match=r"--inspect=.*new is a folder; give a file"):
        inspect("image_folder", epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "new"))


def test_a_folder_in_a_folder_is_read_and_leftovers_are_not(tmp_path):
    inner = tmp_path / "photos" / "photos"
    layouts.masks(inner, SCENES)
    write(tmp_path, "__MACOSX/photos/._street1.jpg", ".DS_Store", "README.txt", "photos/LICENSE")
    (inner / "._street1_mask.png").write_bytes(b"\0\5\26\7")
    (inner / "Thumbs.db").write_bytes(b"\0")
    found, plan = read(tmp_path)
    assert len(found) == len(SCENES)
    assert not plan.problems.left_out


def test_suffixes_in_upper_case(tmp_path):
    layouts.masks(tmp_path, SCENES)
    for path in list(tmp_path.iterdir()):
        if path.suffix in (".jpg", ".png"):
            path.rename(path.with_suffix(path.suffix.upper()))
    assert len(read(tmp_path)[0]) == len(SCENES)


# The page


PAGE = (ROOT / "docs" / "your_photographs.md").read_text()


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_the_page_shows_each_layout_as_it_is_written(tmp_path, name):
    layouts.LAYOUTS[name](tmp_path, SCENES)
    assert "\n".join(["```text", *layouts.tree(tmp_path), "```"]) in PAGE
    if name in layouts.SAMPLES:
        assert f"```text\n{layouts.sample(tmp_path, name)}\n```" in PAGE
        assert f"(layouts/{name}.png)" in PAGE


def test_the_sheets_are_small_and_all_are_shown():
    sheets = list((ROOT / "docs" / "layouts").iterdir())
    assert {sheet.name for sheet in sheets} == {f"{name}.png" for name in layouts.SAMPLES}
    assert sum(sheet.stat().st_size for sheet in sheets) < 300_000


def test_the_script_draws_the_sheets(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["draw_layouts.py", f"--out={tmp_path}"])
    monkeypatch.setattr(layouts, "LAYOUTS", {"masks": layouts.masks})
    layouts.main()
    ours, kept = (
        np.asarray(Image.open(folder / "masks.png")) for folder in (tmp_path, ROOT / "docs" / "layouts")
    )
    assert ours.shape == kept.shape
    assert (ours != kept).mean() < 0.05  # lettering and JPEG may differ with Pillow


# COCO


def coco(raw, change=lambda content: None, where="annotations/instances_default.json"):
    layouts.LAYOUTS["cvat"](raw, SCENES)
    content = layouts.coco_content(SCENES)
    change(content)
    layouts.save(raw / where, json.dumps(content))


def test_an_image_that_may_be_one_of_two_is_left_out_by_name(tmp_path):
    coco(tmp_path)
    shutil.copytree(tmp_path / "images" / "default", tmp_path / "images" / "more")
    (tmp_path / "images" / "more" / "street1.jpg").unlink()
    found, plan = read(tmp_path)
    assert {image for _, image, _ in found} == {"street1"}
    assert any("street2.jpg may be images/" in line for line in plan.problems.left_out)


def test_folders_in_a_file_name_tell_images_apart(tmp_path):
    coco(
        tmp_path,
        lambda content: [
            image.update(file_name=f"default/{image['file_name']}") for image in content["images"]
        ],
    )
    shutil.copytree(tmp_path / "images" / "default", tmp_path / "images" / "more")
    found, plan = read(tmp_path)
    assert len(found) == 9
    (line,) = plan.problems.left_out
    assert "more: 3 images have no object in instances_default.json" in line


def test_the_split_of_a_coco_file_finds_its_images(tmp_path):
    for split in ("train", "val"):
        own = [scene for scene in SCENES if scene.split == split]
        content = layouts.coco_content(own, "1.jpg" if split == "val" else "{name}.jpg")
        layouts.save(tmp_path / "annotations" / f"{split}.json", json.dumps(content))
        for scene in own:
            layouts.save(
                tmp_path / "images" / split / f"{'1' if split == 'val' else scene.name}.jpg", scene.image()
            )
    layouts.save(tmp_path / "images" / "train" / "1.jpg", SCENES[0].image())
    found, _ = read(tmp_path)
    assert {key[:2] for key in found} == {("train", "street1"), ("train", "street2"), ("val", "1")}


def test_objects_of_several_files_count_once_and_other_files_are_said(tmp_path):
    coco(tmp_path, lambda content: content["annotations"][0].update(segmentation=[], bbox=[1, 1, 5, 5]))
    coco(tmp_path, where="annotations/person_keypoints_default.json")
    captions = layouts.coco_content(SCENES) | {
        "annotations": [{"id": 1, "image_id": 1, "caption": "a street"}]
    }
    layouts.save(tmp_path / "annotations" / "captions_default.json", json.dumps(captions))
    shutil.copy(
        tmp_path / "annotations" / "person_keypoints_default.json", tmp_path / "annotations" / "v2.json"
    )
    coco(tmp_path, lambda content: content["annotations"][0].update(segmentation=[], bbox=[1, 1, 5, 5]))
    found, plan = read(tmp_path)
    assert len(found) == 9  # keypoints' file has a mask of the object that has none in the other
    assert plan.problems.left_out == ["instances_default.json: an object has a box but no mask"]
    notes = "\n".join(plan.problems.notes)
    assert "captions_default.json is not read: it has no mask" in notes
    for name in ("person_keypoints_default.json", "v2.json"):
        assert f"{name}: 3 of its images are also in instances_default.json; the objects" in notes
    for image in (image for images in plan.splits.values() for image in images):
        assert [len(target.ann_ids) for target in image.targets] == [1, 1, 1]


def of_class(content, name, first_id):
    """A COCO file's objects of one class, as category 1, with ids from `first_id` on."""
    number = 1 + list(layouts.CLASSES).index(name)
    own = [one for one in content["annotations"] if one["category_id"] == number]
    objects = [{**one, "id": first_id + i, "category_id": 1} for i, one in enumerate(own)]
    return {**content, "annotations": objects, "categories": [{"id": 1, "name": name}]}


@pytest.mark.parametrize("first", [1, 100])  # ids that are those of the other file, or not
def test_coco_files_of_a_class_each_are_united(tmp_path, first, capsys):
    coco(tmp_path)
    expected, _ = read(tmp_path)
    (tmp_path / "annotations" / "instances_default.json").unlink()
    for i, name in enumerate(layouts.CLASSES):
        content = of_class(layouts.coco_content(SCENES), name, 1 + i * (first - 1))
        if name == "car":  # an image without a car, and a copy of the file
            content["annotations"] = content["annotations"][1:]
            layouts.save(tmp_path / "annotations" / "copy.json", json.dumps(content))
        layouts.save(tmp_path / "annotations" / f"{name}s.json", json.dumps(content))
    found, plan = read(tmp_path)
    assert found.keys() == expected.keys() - {("train", "street1", "car")}
    for key, mask in found.items():
        np.testing.assert_array_equal(mask, expected[key])
    for image in (image for images in plan.splits.values() for image in images):
        ids = [number for target in image.targets for number in target.ann_ids]
        assert len(ids) == len(set(ids)) == len(image.expressions)
    assert set(plan.classes) == set(layouts.CLASSES)
    assert plan.problems.left_out == []
    assert not any("shows no class" in note for note in plan.problems.notes)
    assert any("trees.json: 3 of its images are also in" in note for note in plan.problems.notes)
    assert "read as coco: 3 images with objects in COCO's format, in " in capsys.readouterr().out


def test_an_image_in_the_coco_files_of_two_splits_is_in_the_first(tmp_path):
    coco(tmp_path, where="annotations/instances_train.json")
    (tmp_path / "annotations" / "instances_default.json").unlink()
    content = of_class(layouts.coco_content(SCENES), "car", 1)
    content["categories"][0]["name"] = "bus"
    layouts.save(tmp_path / "annotations" / "instances_val.json", json.dumps(content))
    _, plan = read(tmp_path)
    assert set(plan.classes) == set(layouts.CLASSES)
    assert any("which is another split and is used" in line for line in plan.problems.left_out)


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("name", ["__ignore__", "Void", "unlabelled"])
def test_objects_of_an_ignored_coco_category_do_not_count(tmp_path, beside, name):
    content = layouts.coco_content(SCENES)
    content["categories"][0]["name"] = name
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] > 1 or
                              one["category_id"] == 1]  # fmt: skip
    layouts.save(tmp_path / ("annotations.json" if beside else "all/coco.json"), json.dumps(content))
    for scene in SCENES:
        layouts.save(tmp_path / ("." if beside else "images") / f"{scene.name}.jpg", scene.image())
    found, plan = read(tmp_path)
    void, *others = layouts.CLASSES
    assert set(plan.classes) == {text for _, _, text in found} == set(others)
    for image in (image for images in plan.splits.values() for image in images):
        example, scene = image.example(), next(one for one in SCENES if one.name == image.image_id)
        for target in example["targets"]:
            size = (example["height"], example["width"])
            own, ignored = (masks.decode(target[name], size) > 0 for name in ("counts", "ignored"))
            expected = scene.mask(void) & ~own
            assert (ignored & expected).sum() / (ignored | expected).sum() > 0.8
            assert not (ignored & own).any()
    assert len([i for images in plan.splits.values() for i in images if i.targets]) == len(SCENES)


def test_images_of_coco_that_are_named_like_masks(tmp_path):
    content = layouts.coco_content(SCENES, "{name}_mask.jpg")
    layouts.save(tmp_path / "annotations" / "coco.json", json.dumps(content))
    for scene in SCENES:
        layouts.save(tmp_path / "images" / f"{scene.name}_mask.jpg", scene.image())
    found, plan = read(tmp_path)
    assert len(found) == 9
    assert {image for _, image, _ in found} == {f"{scene.name}_mask" for scene in SCENES}
    assert plan.problems.left_out == []


def test_coco_file_names_in_another_case(tmp_path):
    coco(
        tmp_path,
        lambda content: [one.update(file_name=one["file_name"].upper()) for one in content["images"]],
    )
    assert len(read(tmp_path)[0]) == 9


def test_coco_names_are_said_with_spaces_and_background_is_not_asked_for(tmp_path):
    def change(content):
        content["categories"][0]["name"] = "Traffic_Light"
        content["categories"][1]["name"] = "_background_"

    coco(tmp_path, change)
    found, plan = read(tmp_path)
    assert {text for _, _, text in found} == {"traffic light", "tree"}
    assert plan.classes == ("traffic light", "tree")


def test_a_split_without_val_holds_some_out(tmp_path):
    layouts.LAYOUTS["roboflow_coco"](tmp_path, layouts.make_scenes(4))
    shutil.rmtree(tmp_path / "valid")
    found, plan = read(tmp_path)
    assert {key[:2] for key in found} == {("train", "street1"), ("train", "street2"), ("val", "street3")}
    assert any("there is no val split" in note for note in plan.problems.notes)


# Label Studio


def test_regions_of_a_label_are_united_and_the_last_annotation_counts(tmp_path):
    layouts.label_studio(tmp_path, SCENES)
    scene, old = SCENES[0], np.full((layouts.HEIGHT, layouts.WIDTH), 255, np.uint8)
    layouts.save(
        tmp_path / "task-1-annotation-5-by-ann@x.org-tag-Road-1.png", scene.mask("car").astype(np.uint8) * 255
    )
    layouts.save(tmp_path / "task-1-annotation-2-by-1-tag-Road-0.png", old)
    layouts.save(tmp_path / "task-9-annotation-9-by-1-tag-Traffic_Light-0.png", old)
    found, plan = read(tmp_path)
    np.testing.assert_array_equal(found["train", "street1", "road"], scene.mask("road") | scene.mask("car"))
    assert len(found) == 9
    assert "task 1 has 2 annotations; the last, 5, is used" in plan.problems.notes
    assert "the image of task 9 is not found" in plan.problems.left_out


@pytest.mark.parametrize("name", ["task-{}.jpg", "{}.jpg"])
def test_images_named_after_their_tasks_need_no_json(tmp_path, name):
    layouts.label_studio(tmp_path, SCENES)
    (tmp_path / "project-1-at-2026-01-31.json").unlink()
    for i, scene in enumerate(SCENES, 1):
        (tmp_path / "images" / f"{scene.name}.jpg").rename(tmp_path / "images" / name.format(i))
    assert len(read(tmp_path)[0]) == 9


def ignored_of(plan, name):
    """(object, pixels that do not count) of each target of an image, bool [H, W]."""
    images = (image for images in plan.splits.values() for image in images)
    example = next(image for image in images if image.image_id == name).example()
    size = (example["height"], example["width"])
    return [
        (masks.decode(target["counts"], size) > 0, masks.decode(target["ignored"], size) > 0)
        for target in example["targets"]
    ]


def test_regions_labelled_ignore_do_not_count(tmp_path):
    layouts.label_studio(tmp_path, SCENES)
    for path in tmp_path.glob("*-Road-0.png"):
        path.rename(path.with_name(path.name.replace("-Road-", "-Ignore-")))
    found, plan = read(tmp_path)
    assert {text for _, _, text in found} == set(plan.classes) == {"car", "tree"}
    for scene in SCENES:
        for own, ignored in ignored_of(plan, scene.name):
            np.testing.assert_array_equal(ignored, scene.mask("road") & ~own)


def rename_regions(raw, middle, *labels):
    """Gives regions other labels, and a user and a tag with hyphens."""
    for old, new in zip(layouts.CLASSES, labels, strict=True):
        for path in raw.glob(f"task-*-by-1-tag-{old.title()}-0.png"):
            path.rename(path.with_name(path.name.replace(f"-1-tag-{old.title()}-", f"-{middle}-{new}-")))


@pytest.mark.parametrize("form", ["full", "minimal", "without labels"])
def test_users_tags_and_labels_with_hyphens(tmp_path, form):
    layouts.label_studio(tmp_path, SCENES)
    labels = ["Traffic-Light", "T-shirt", "Road"]
    rename_regions(tmp_path, "ann-marie@x.org-my-tag", *labels)
    tasks = json.loads((tmp_path / "project-1-at-2026-01-31.json").read_text())
    for task, label in zip(tasks, labels, strict=True):
        value = {"brushlabels": [label], "rle": [0, 1]}
        task |= {"full": {"annotations": [{"result": [{"from_name": "my-tag", "value": value}]}]},
                 "minimal": {"my-tag": [value]}, "without labels": {}}[form]  # fmt: skip
    layouts.save(tmp_path / "project-1-at-2026-01-31.json", json.dumps(tasks))
    found, plan = read(tmp_path)
    assert {text for _, _, text in found} == set(plan.classes) == {"traffic-light", "t-shirt", "road"}
    assert len(found) == 9


@pytest.mark.parametrize(("middle", "label"), [("1-my-tag", "road"), ("1-tag", "road"), ("a-b-c-d", "road")])
def test_the_last_hyphen_separates_a_label_that_is_alone(tmp_path, middle, label):
    write(tmp_path, "images/1.jpg", f"task-1-annotation-1-by-{middle}-Road-0.png")
    assert {text for _, _, text in read(tmp_path)[0]} == {label}


# labelme


@pytest.mark.parametrize("labels", ["", "labels"])
def test_shapes_for_an_image_of_another_size_are_left_out(tmp_path, labels):
    layouts.labelme(tmp_path, SCENES, images="images" if labels else "", labels=labels)
    path = tmp_path / labels / f"{SCENES[0].name}.json"
    content = json.loads(path.read_text()) | {"imageHeight": 2 * layouts.HEIGHT}
    path.write_text(json.dumps(content))
    found, plan = read(tmp_path)
    assert {image for _, image, _ in found} == {scene.name for scene in SCENES[1:]}
    size = f"the image has {layouts.HEIGHT} x {layouts.WIDTH} pixels, its shapes are for "
    says = f"{path} is not read: {size}{2 * layouts.HEIGHT} x {layouts.WIDTH}"
    assert says in plan.problems.left_out


# Hugging Face's imagefolder


def hugging_face(raw, *rows, name="metadata.jsonl"):
    for scene in SCENES:
        layouts.save(raw / f"{scene.name}.jpg", scene.image())
        for text in layouts.CLASSES:
            layouts.save(raw / "masks" / f"{scene.name}_{text}.png", scene.mask(text).astype(np.uint8) * 255)
        layouts.save(raw / "maps" / f"{scene.name}.png", scene.numbers())
    layouts.save(raw / name, "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))


def test_metadata_names_several_masks_in_rows_or_lists(tmp_path):
    one, two, three = (scene.name for scene in SCENES)
    hugging_face(
        tmp_path,
        {"file_name": f"{one}.jpg", "mask_file_name": f"masks/{one}_car.png", "label": "Red_Car",
         "text": "a street"},
        {"file_name": f"{one}.jpg", "mask_file_name": f"masks/{one}_tree.png", "label": "tree"},
        {"file_name": f"{two}.jpg", "segmentation": f"masks/{two}_road.png", "text": "the empty road"},
        {"file_name": f"{three}.jpg", "labels": ["road", 1],
         "mask_file_names": [f"masks/{three}_road.png", f"masks/{three}_car.png"]},
        {"file_name": "gone.jpg", "mask_file_name": "masks/gone.png", "label": "x"},
        {"mask_file_name": "masks/gone.png"},
        "no json",
    )  # fmt: skip
    layouts.save(tmp_path / "classes.txt", "road\ncar\n")
    found, plan = read(tmp_path)
    expected = {(one, "red car"): "car", (one, "tree"): "tree", (two, "the empty road"): "road",
                (three, "road"): "road", (three, "car"): "car"}  # fmt: skip
    assert {key[1:] for key in found} == expected.keys()
    for (_, image, text), mask in found.items():
        scene = next(scene for scene in SCENES if scene.name == image)
        np.testing.assert_array_equal(mask, scene.mask(expected[image, text]))
    captions = {image.image_id: image.captions for images in plan.splits.values() for image in images}
    assert captions == {one: ("a street",), two: (), three: ()}
    lines = "\n".join(plan.problems.left_out)
    for says in ("line 5: ", "gone.jpg is missing", "line 6 has no file_name", "line 7 is not a JSON object"):
        assert says in lines


@pytest.mark.parametrize(
    ("void", "numbers"), [("__ignore__", False), ("Ignored_Region", False), ("void", True), ("Ignore", True)]
)
def test_metadata_labels_that_nobody_asks_for(tmp_path, void, numbers):
    names = {"road": void, "car": "Background", "tree": "tree"}
    rows = [
        {"file_name": f"{scene.name}.jpg",
         "labels": [i if numbers else names[text] for i, text in enumerate(layouts.CLASSES)],
         "mask_file_names": [f"masks/{scene.name}_{text}.png" for text in layouts.CLASSES]}
        for scene in SCENES
    ]  # fmt: skip
    hugging_face(tmp_path, *rows)
    if numbers:
        layouts.save(tmp_path / "classes.txt", "\n".join(names[text] for text in layouts.CLASSES))
    found, plan = read(tmp_path, "metadata")
    assert {text for _, _, text in found} == {"tree"}
    assert plan.classes == ("tree",)
    for scene in SCENES:
        ((own, ignored),) = ignored_of(plan, scene.name)
        np.testing.assert_array_equal(own, scene.mask("tree"))
        np.testing.assert_array_equal(ignored, scene.mask("road") & ~own)


def test_metadata_as_a_table(tmp_path):
    rows = [f'{s.name}.jpg, masks/{s.name}_car.png, "the car, red"' for s in SCENES]
    hugging_face(tmp_path, "file_name, mask, label", *rows, name="metadata.csv")
    found, _ = read(tmp_path)
    assert {text for _, _, text in found} == {"the car, red"}
    assert len(found) == 3


@pytest.mark.parametrize(
    ("masks", "file", "says"),
    [("maps/{}", "classes.txt", "road\ncar\ntree\n"), ("masks/{}_car", "phrases.txt", "the car")],
)
def test_metadata_without_phrases_has_those_of_the_folder(tmp_path, masks, file, says):
    rows = [{"file_name": f"{s.name}.jpg", "mask_file_name": masks.format(s.name) + ".png"} for s in SCENES]
    hugging_face(tmp_path, *rows)
    layouts.save(tmp_path / file, says)
    found, _ = read(tmp_path, "metadata")
    assert {text for _, _, text in found} == set(says.strip().splitlines())
    for (_, image, text), mask in found.items():
        scene = next(scene for scene in SCENES if scene.name == image)
        np.testing.assert_array_equal(mask, scene.mask(text.split()[-1]))


def test_masks_come_before_captions_of_the_same_images(tmp_path):
    layouts.LAYOUTS["class_maps"](tmp_path, SCENES)
    rows = [{"file_name": f"train/{s.name}.jpg", "text": "a street"} for s in SCENES if s.split == "train"]
    layouts.save(tmp_path / "images" / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    found, plan = read(tmp_path)
    assert len(found) == 9
    assert [image.captions for image in plan.splits["train"]] == [("a street",)] * 2


def test_captions_of_images_in_a_folder_below_the_metadata(tmp_path):
    write(tmp_path, "train/images/a.jpg", "train/images/b.jpg")
    rows = [{"file_name": f"images/{name}.jpg", "text": f"caption {name}"} for name in "ab"]
    layouts.save(tmp_path / "train" / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    plan = folder.read(epath.Path(tmp_path))
    captions = {image.image_id: image.captions for images in plan.splits.values() for image in images}
    assert captions == {"a": ("caption a",), "b": ("caption b",)}
