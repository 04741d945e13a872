"""What the values of masks mean: numbers, colours, black and white, and several files of one image."""

import json

import numpy as np
import pytest
from etils import epath
from PIL import Image
from test_layouts import read

from genmask_jax.data.masks import decode
from genmask_jax.data.prepared.prepare import prepare
from genmask_jax.data.raw_formats.black_and_white import values_of
from genmask_jax.data.raw_formats.palettes import (
    ADE20K,
    CITYSCAPES_ALL,
    cityscapes_names,
    standard_tables,
    voc_colour,
)
from genmask_jax.utils.errors import UserError

H, W = 40, 48
CAMVID = "64 128 64\tAnimal\n0 128 192\tBicyclist\n128 128 128\t\tSky\n128 64 128\t\tRoad\n0 0 0\t\tVoid\n"
TABLE = [(64, 128, 64), (0, 128, 192), (128, 128, 128), (128, 64, 128), (0, 0, 0)]


def blocks(seed=0, of=(0, 1, 2)):
    """Numbers [H, W] in blocks of 8 pixels, each of `of` among them."""
    small = np.random.default_rng(seed).choice(of, (H // 8, W // 8))
    small.flat[: len(of)] = of
    return small.repeat(8, 0).repeat(8, 1)


def images(raw, *names, folder="images"):
    (raw / folder).mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        pixels = np.random.default_rng(i).integers(0, 256, (H, W, 3), np.uint8)
        Image.fromarray(pixels).save(raw / folder / f"{name}.jpg")


def save(path, values, **options):
    """Saves numbers [H, W] or colours [H, W, 3]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        image = values if isinstance(values, Image.Image) else Image.fromarray(values)
        image.save(path, **options)


def paletted(values, colours):
    image = Image.fromarray(values.astype(np.uint8)).convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette([level for colour in colours for level in colour])
    return image


def write(raw, masks, where="labels/{}.png", **files):
    """Images 0, 1, ..., a mask of each, and text files."""
    images(raw, *map(str, range(len(masks))))
    for i, mask in enumerate(masks):
        save(raw / where.format(i), mask)
    for name, content in files.items():
        (raw / name.replace("__", ".")).write_text(content)


def texts(found):
    return {text for _, _, text in found}


# Colours


def as_colours(values):
    return np.array(TABLE, np.uint8)[values]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("label_colors__txt", CAMVID),
        ("labelmap__txt", "# label:color_rgb:parts:actions\nanimal:64,128,64::\nbicyclist:0,128,192::\n"
                          "sky:128,128,128::\nroad:128,64,128::\nvoid:0,0,0::\n"),
        ("class_dict__csv", "name,r,g,b\nAnimal,64,128,64\nBicyclist,0,128,192\nSky,128,128,128\n"
                            "Road,128,64,128\nVoid,0,0,0\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["RGB", "RGBA", "palette", "other palette"])
def test_colours_come_back_as_the_table_names_them(tmp_path, file, content, kind):
    numbers = [blocks(i, range(5)) for i in range(2)]
    if kind == "palette":
        masks = [paletted(values, TABLE) for values in numbers]
    elif kind == "other palette":  # the numbers of the palette are no classes
        masks = [paletted(4 - values, TABLE[::-1]) for values in numbers]
    else:
        masks = [Image.fromarray(as_colours(values)).convert(kind) for values in numbers]
    write(tmp_path, masks, **{file: content})
    found, plan = read(tmp_path)
    names = ["animal", "bicyclist", "sky", "road"]
    assert texts(found) == set(names)
    for (_, image, text), mask in found.items():
        np.testing.assert_array_equal(mask, numbers[int(image)] == names.index(text))
    assert plan.problems.left_out == []
    assert plan.splits["train"][0].example()["targets"][0]["ignored"]  # void


def test_jpegs_have_the_nearest_colour(tmp_path):
    numbers = [np.arange(4).reshape(2, 2).repeat(H // 2, 0).repeat(W // 2, 1)[::flip] for flip in (1, -1)]
    write(tmp_path, [as_colours(v) for v in numbers], where="labels/{}.jpg", label_colors__txt=CAMVID)
    found, plan = read(tmp_path)
    for (_, image, text), mask in found.items():
        truth = numbers[int(image)] == ["animal", "bicyclist", "sky", "road"].index(text)
        assert (mask & truth).sum() / (mask | truth).sum() > 0.9
    assert len(found) == 8
    (line,) = [line for line in (*plan.problems.notes, *plan.problems.left_out) if "JPEG" in line]
    assert "2 masks have colours that are not in label_colors.txt" in line


def test_a_class_that_only_edges_of_a_jpeg_have_is_not_asked_for(tmp_path):
    numbers = np.where(np.arange(W) < W // 2, 1, 4) * np.ones((H, 1), int)
    masks = [as_colours(numbers) for _ in range(2)]
    for mask in masks:
        mask[:, W // 2 : W // 2 + 2] = (0, 64, 96)
    write(tmp_path, masks, "labels/{}.jpg", label_colors__txt=CAMVID + "0 64 96\tWater\n")
    found, plan = read(tmp_path)
    assert texts(found) == {"bicyclist"}
    assert any("classes do not occur" in line and "water" in line for line in plan.problems.left_out)


def test_colours_without_a_name_are_reported_once_and_ignored(tmp_path):
    masks = [as_colours(blocks(i, range(4))) for i in range(3)]
    for mask in masks:
        mask[:8, :8] = (1, 2, 3)
    write(tmp_path, masks, label_colors__txt=CAMVID)
    found, plan = read(tmp_path)
    lines = plan.problems.left_out
    assert (
        lines[0]
        == "the colour (1, 2, 3) has no name in label_colors.txt; these pixels, in 3 masks, are ignored"
    )
    assert len(lines) == 1
    assert not any(mask[:8, :8].any() for mask in found.values())


def test_voc_and_labelme_draw_listed_numbers_in_vocs_colours(tmp_path):
    assert [voc_colour(n) for n in (0, 1, 15, 255)] == [0, 0x800000, 0xC08080, 0xE0E0C0]
    numbers = blocks(of=(0, 1, 2, 255))
    colours = np.array([[c >> 16, c >> 8 & 255, c & 255] for c in map(voc_colour, range(256))], np.uint8)
    write(tmp_path, [colours[numbers]] * 2, class_names__txt="_background_\naeroplane\ncar")
    found, plan = read(tmp_path)
    assert texts(found) == {"aeroplane", "car"}
    np.testing.assert_array_equal(found["train", "0", "car"], numbers == 2)
    assert plan.problems.left_out == []


@pytest.mark.parametrize("name", ["Cityscapes", "ADE20K"])
def test_standard_palettes_are_known(tmp_path, name):
    table = [(text, colour) for text, colour in standard_tables()[name] if text != "void"][:5]
    numbers = blocks(of=range(5))
    colours = np.array([[c >> 16, c >> 8 & 255, c & 255] for _, c in table], np.uint8)
    write(tmp_path, [colours[numbers]] * 2)
    found, _ = read(tmp_path)
    assert texts(found) == {text for text, _ in table}
    np.testing.assert_array_equal(found["train", "0", table[3][0]], numbers == 3)


def test_standard_tables_are_whole():
    tables = standard_tables()
    assert {name: len(table) for name, table in tables.items()} == {"Cityscapes": 19, "ADE20K": 150}
    assert ("car", 0x0066C8) in tables["ADE20K"]
    assert [name for name, _ in tables["ADE20K"]].count("void") == ADE20K.count("8c8c8c") == 2
    assert cityscapes_names(train_ids=False)[26] == cityscapes_names(train_ids=True)[13] == "car"


def test_colours_with_phrases_are_no_black_and_white_masks(tmp_path):
    write(tmp_path, [as_colours(blocks(i, range(4))) for i in range(2)], phrases__txt="the road")
    with pytest.raises(
        UserError, match=r"not black and white; for masks of several classes, write .*label_colors.txt"
    ):
        read(tmp_path)
    (tmp_path / "label_colors.txt").write_text(CAMVID)
    assert texts(read(tmp_path)[0]) == {"animal", "bicyclist", "sky", "road"}


# Palettes

VOC_NAMES = "background\naeroplane\nbicycle\nbird"


def levels(colour):
    return colour >> 16, colour >> 8 & 255, colour & 255


def in_order(numbers, order):
    """Numbers in VOC's colours, with a palette in that order, as `Image.quantize` saves RGB."""
    return paletted(np.argsort(order)[numbers], [levels(voc_colour(n)) for n in order])


@pytest.mark.parametrize("orders", [([2, 0, 3, 1], [1, 3, 0, 2]), ([2, 0, 3, 1], [2, 0, 3, 1])])
def test_palettes_in_vocs_colours_are_read_by_colour(tmp_path, orders):
    numbers = [blocks(i, range(4)) for i in range(2)]
    masks = [in_order(values, order) for values, order in zip(numbers, orders, strict=True)]
    write(tmp_path, masks, classes__txt=VOC_NAMES)
    found, plan = read(tmp_path)
    names = VOC_NAMES.split("\n")
    assert texts(found) == set(names[1:])
    for (_, image, text), mask in found.items():
        np.testing.assert_array_equal(mask, numbers[int(image)] == names.index(text))
    assert plan.problems.left_out == []


def test_quantized_black_and_white_is_read_by_colour(tmp_path):
    numbers = [blocks(i, (0, 1)) for i in range(2)]
    masks = [paletted(numbers[0], [(0, 0, 0), (255, 255, 255)]),
             paletted(1 - numbers[1], [(255, 255, 255), (0, 0, 0)])]  # fmt: skip
    write(tmp_path, masks, classes__txt="background\nroad")
    for (_, image, _), mask in read(tmp_path)[0].items():
        np.testing.assert_array_equal(mask, numbers[int(image)] == 1)


def test_palettes_at_the_numbers_of_the_list_are_read_by_number(tmp_path):
    numbers = blocks(of=(0, 1, 2, 255))
    for i, colours in enumerate(
        ([levels(voc_colour(n)) for n in range(256)], [(n, 9, n) for n in range(256)])
    ):
        raw = tmp_path / str(i)
        write(raw, [paletted(numbers, colours)] * 2, classes__txt=VOC_NAMES)
        found, plan = read(raw)
        np.testing.assert_array_equal(found["train", "0", "bicycle"], numbers == 2)
        assert "classes.txt: 1 of 4 classes do not occur (bird)" in plan.problems.left_out[0]


def test_palettes_that_differ_and_that_no_table_explains_are_an_error(tmp_path):
    colours = [(9, 9, 9), (200, 0, 7), (0, 200, 7)]
    masks = [paletted(blocks(), colours), paletted(blocks(), colours[::-1])]
    write(tmp_path, masks, classes__txt="road\nsky\ntree")
    says = r"0.png and .*1.png have different palettes \(0 is \(9, 9, 9\) in the first, \(0, 200, 7\)"
    with pytest.raises(UserError, match=says):
        read(tmp_path)
    (tmp_path / "label_colors.txt").write_text("9 9 9 road\n200 0 7 sky\n0 200 7 tree")
    np.testing.assert_array_equal(read(tmp_path)[0]["val", "1", "road"], blocks() == 2)


def test_a_border_without_a_name_does_not_make_indices_numbers(tmp_path):
    numbers = blocks(of=range(4))
    numbers[:, :4] = 4  # black, which is not listed
    masks = [paletted(numbers, TABLE), paletted(4 - numbers, TABLE[::-1])]
    listed = "\n".join(CAMVID.splitlines()[:4])
    write(tmp_path, masks, label_colors__txt=listed, classes__txt="Animal\nBicyclist\nSky\nRoad\nCar")
    found, plan = read(tmp_path)
    np.testing.assert_array_equal(found["val", "1", "sky"], numbers == 2)
    assert "the colour (0, 0, 0) has no name" in plan.problems.left_out[0]


def test_a_few_stray_pixels_do_not_keep_colours_from_being_read(tmp_path):
    numbers = blocks(of=range(4))
    masks = [np.array([levels(voc_colour(n)) for n in range(4)], np.uint8)[numbers] for _ in range(2)]
    masks[0][0, :3] = (1, 2, 3)
    write(tmp_path, masks, classes__txt=VOC_NAMES)
    found, plan = read(tmp_path)
    np.testing.assert_array_equal(found["val", "1", "bird"], numbers == 3)
    (line,) = plan.problems.left_out
    assert line.startswith(
        "the colour (1, 2, 3) has no name in classes.txt, in VOC's colours; these pixels, in 1 "
    )


# Black and white


def test_white_is_the_second_of_two_names(tmp_path):
    numbers = [blocks(i, (0, 255)) for i in range(2)]
    write(tmp_path, [v.astype(np.uint8) for v in numbers], classes__txt="background\nroad")
    found, plan = read(tmp_path)
    assert texts(found) == {"road"}
    np.testing.assert_array_equal(found["train", "0", "road"], numbers[0] == 255)
    assert plan.problems.left_out == []


def test_white_is_void_beside_the_number_one(tmp_path):
    numbers = [blocks(0, (0, 1)), blocks(1, (0, 255)), blocks(2, (0, 1, 255))]
    write(tmp_path, [v.astype(np.uint8) for v in numbers], classes__txt="background\nroad")
    found, _ = read(tmp_path)
    assert {image for _, image, _ in found} == {"0", "2"}
    for (_, image, _), mask in found.items():
        np.testing.assert_array_equal(mask, numbers[int(image)] == 1)


@pytest.mark.parametrize("names", ["background\nroad", "road"])
def test_one_and_white_in_different_masks_are_an_error(tmp_path, names):
    masks = [blocks(0, (0, 1)).astype(np.uint8), blocks(1, (0, 255)).astype(np.uint8)]
    write(tmp_path, masks, classes__txt=names)
    with pytest.raises(UserError, match=r"0.png has the value 1, .*1.png has 255 and no 1: save all masks"):
        read(tmp_path)


@pytest.mark.parametrize("white", [1, 255])
def test_a_single_name_is_that_of_white(tmp_path, white):
    numbers = blocks(of=(0, white)).astype(np.uint8)
    write(tmp_path, [numbers] * 2, classes__txt="road")
    np.testing.assert_array_equal(read(tmp_path)[0]["train", "0", "road"], numbers == white)


def test_two_names_and_jpegs_of_black_and_white(tmp_path):
    numbers = blocks(of=(0, 255)).astype(np.uint8)
    write(tmp_path, [numbers] * 2, where="masks/{}.jpg", classes__txt="background\nroad")
    mask = read(tmp_path)[0]["train", "0", "road"]
    assert (mask == (numbers == 255)).mean() > 0.98


@pytest.mark.parametrize("file", ["classes.txt", "phrases.txt"])
def test_small_objects_in_jpegs(tmp_path, file):
    """Most pixels are black, as in many a palette."""
    numbers = np.zeros((H, W), np.uint8)
    numbers[8:16, 16:32] = 255
    write(tmp_path, [numbers] * 2, where="masks/{}.jpg")
    (tmp_path / file).write_text({"classes.txt": "background\nroad", "phrases.txt": "road"}[file])
    mask = read(tmp_path)[0]["train", "0", "road"]
    assert (mask == (numbers == 255)).mean() > 0.98


def soft(values):
    """Edges blurred, as by resizing."""
    small = Image.fromarray(values.astype(np.uint8)).resize((W // 2, H // 2), Image.Resampling.BILINEAR)
    return np.asarray(small.resize((W, H), Image.Resampling.BILINEAR))


ONE, TWO = blocks(0, (0, 1)), blocks(1, (0, 1))
PAIRS = {
    "0 and 1": (ONE, TWO),
    "0 and 255": (ONE * 255, TWO * 255),
    "0 and 100": (ONE * 100, TWO * 100),
    "16 bits": (ONE.astype(np.uint16), TWO.astype(np.uint16)),
    "16 bits, white": ((ONE * 65535).astype(np.uint16), (TWO * 65535).astype(np.uint16)),
    "black and red": (np.uint8([[0, 0, 0], [255, 0, 0]])[ONE], np.uint8([[0, 0, 0], [255, 0, 0]])[TWO]),
    "black and dark red": (np.uint8([[0, 0, 0], [128, 0, 0]])[ONE], np.uint8([[0, 0, 0], [128, 0, 0]])[TWO]),
    "palette": (paletted(ONE, [(0, 0, 0), (128, 0, 0)]), paletted(TWO, [(0, 0, 0), (128, 0, 0)])),
    "one bit": (Image.fromarray(ONE.astype(bool)), Image.fromarray(TWO.astype(bool))),
}


@pytest.mark.parametrize("case", PAIRS)
def test_the_brighter_of_two_values_is_the_object(tmp_path, case):
    masks = [
        m.astype(np.uint8) if isinstance(m, np.ndarray) and m.dtype == np.int64 else m for m in PAIRS[case]
    ]
    write(tmp_path, masks, phrases__txt="the leaf")
    found, plan = read(tmp_path)
    np.testing.assert_array_equal(found["train", "0", "the leaf"], ONE == 1)
    np.testing.assert_array_equal(found["val", "1", "the leaf"], TWO == 1)
    assert plan.problems.left_out == []


@pytest.mark.parametrize("where", ["masks/{}.jpg", "masks/{}.npy"])
def test_black_and_white_in_jpeg_and_npy(tmp_path, where):
    scale = 255 if where.endswith("jpg") else 1
    write(tmp_path, [(m * scale).astype(np.uint8) for m in (ONE, TWO)], where=where, phrases__txt="the leaf")
    mask = read(tmp_path)[0]["train", "0", "the leaf"]
    assert (mask == (ONE == 1)).mean() > 0.98


def test_blurred_edges_are_black_and_white(tmp_path):
    write(tmp_path, [soft(m * 255) for m in (ONE, TWO)], phrases__txt="the leaf")
    found, _ = read(tmp_path)
    np.testing.assert_array_equal(found["train", "0", "the leaf"], soft(ONE * 255) >= 128)


@pytest.mark.parametrize(
    "values",
    [(0, 128, 255), (0, 1, 2), (1, 2, 3), (0, 100, 200, 255), (0, 127, 254), (0, 20, 40), (0, 1, 255),
     (0, 250, 255), (*range(21), 255)],
)  # fmt: skip
def test_more_than_two_values_are_never_black_and_white(tmp_path, values):
    save(tmp_path / "a.png", blocks(of=values).astype(np.uint8))
    assert values_of(epath.Path(tmp_path / "a.png")) is None
    save(tmp_path / "a.jpg", blocks(of=(0, 128, 255)).astype(np.uint8), quality=90)
    assert values_of(epath.Path(tmp_path / "a.jpg")) is None


def test_values_are_counted_over_all_masks(tmp_path):
    masks = [(ONE * 128).astype(np.uint8), (TWO * 255).astype(np.uint8)]
    write(tmp_path, masks, phrases__txt="the leaf")
    with pytest.raises(UserError, match=r"the 2 masks have 3 values \(\(0, 0, 0\), \(128, 128, 128\), \(255"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("value", "files", "says"),
    [
        (0, {"phrases__txt": "the leaf"}, "all 2 masks are empty"),
        (255, {"phrases__txt": "the leaf"}, "all 2 masks are full"),
        (0, {"classes__txt": "background\nroad"}, "all 2 masks have the value 0 everywhere"),
        (1, {"classes__txt": "background\nroad"}, "all 2 masks have the value 1 everywhere"),
    ],
)
def test_a_dataset_of_empty_or_full_masks_is_an_error(tmp_path, value, files, says):
    write(tmp_path, [np.full((H, W), value, np.uint8)] * 2, **files)
    with pytest.raises(UserError, match=says):
        read(tmp_path)


# Numbers


def test_numbers_of_many_bits(tmp_path):
    numbers = blocks(of=(0, 255, 300, 1000))
    names = "\n".join(f"name {i}" for i in range(1001))
    for suffix, dtype in (("png", np.uint16), ("tif", np.int32), ("npy", np.int64)):
        raw = tmp_path / suffix
        write(raw, [numbers.astype(dtype)] * 2, where="labels/{}." + suffix, classes__txt=names)
        found, _ = read(raw)
        assert texts(found) == {"name 0", "name 255", "name 300", "name 1000"}
        np.testing.assert_array_equal(found["train", "0", "name 300"], numbers == 300)


def test_labelmes_numbers_begin_at_minus_one(tmp_path):
    numbers = blocks(of=(0, 1, 2, 255))  # labelme2voc writes -1 as 255
    files = {
        "labels__txt": "__ignore__\n_background_\naeroplane\ncar",
        "class_names__txt": "_background_\naeroplane\ncar",
    }
    write(tmp_path, [numbers.astype(np.uint8)] * 2, where="SegmentationClass/{}.png", **files)
    found, plan = read(tmp_path)
    assert texts(found) == {"aeroplane", "car"}
    np.testing.assert_array_equal(found["train", "0", "aeroplane"], numbers == 1)
    assert plan.problems.left_out == []


def test_numbers_that_the_list_cannot_explain_stop_strict(tmp_path):
    raw = tmp_path / "raw"
    write(raw, [blocks(of=(0, 1, 5, 7)).astype(np.uint8)] * 3, classes__txt="road\nsky\ntree\n")
    found, plan = read(raw)
    assert texts(found) == {"road", "sky"}
    assert plan.problems.left_out == [
        "the numbers 5, 7 have no name in classes.txt; these pixels, in 3 masks, are ignored",
        "classes.txt: 1 of 3 classes do not occur (tree); check that the numbers match the annotations",
    ]
    with pytest.raises(UserError, match="--strict: the numbers 5, 7 have no name"):
        prepare("image_folder", epath.Path(raw), epath.Path(tmp_path / "out"), num_workers=1, strict=True)


def test_names_that_no_polygon_has_are_reported(tmp_path):
    images(tmp_path, "0", "1")
    (tmp_path / "labels").mkdir()
    for i in range(2):
        lines = ["0 0.1 0.1 0.9 0.1 0.5 0.5", "1 0.5 0.5 0.9 0.5 0.9 0.9", "2 0.1 0.8 0.3 0.8 0.2 0.95"]
        (tmp_path / "labels" / f"{i}.txt").write_text("\n".join(lines))
    (tmp_path / "data.yaml").write_text("names: [no, background, void, Traffic_Light]\n")
    found, plan = read(tmp_path)
    assert texts(found) == {"no"}
    assert plan.classes == ("no", "traffic light")
    (line,) = plan.problems.left_out
    assert "data.yaml: 1 of 4 classes do not occur (traffic light)" in line
    assert plan.splits["train"][0].example()["targets"][0]["ignored"]  # the polygon of void


def test_labelmes_ignored_shapes_do_not_count_and_background_is_not_asked_for(tmp_path):
    images(tmp_path, "0", "1", folder=".")
    square = [[2, 2], [20, 2], [20, 20], [2, 20]]
    shapes = [
        {"label": label, "shape_type": "polygon", "points": square} for label in ("car", "_background_")
    ]
    shapes.append(
        {"label": "__ignore__", "shape_type": "polygon", "points": [[10, 10], [40, 10], [40, 30], [10, 30]]}
    )
    for i in range(2):
        (tmp_path / f"{i}.json").write_text(json.dumps({"shapes": shapes}))
    found, plan = read(tmp_path)
    assert texts(found) == {"car"}
    (target,) = plan.splits["train"][0].example()["targets"]
    ignored, car = decode(target["ignored"], (H, W)), decode(target["counts"], (H, W))
    assert ignored[25, 35]
    assert not (ignored & car).any()


# Several files of one image


def cityscapes(raw, *endings):
    ids = blocks(of=(7, 8, 26, 33, 4))
    train = np.select([ids == n for n in (7, 8, 26, 33)], [0, 1, 13, 18], 255)
    colours = {7: (128, 64, 128), 8: (244, 35, 232), 26: (0, 0, 142), 33: (119, 11, 32), 4: (0, 0, 0)}
    rgb = np.zeros((H, W, 3), np.uint8)
    for number, colour in colours.items():
        rgb[ids == number] = colour
    values = {"labelIds": ids.astype(np.uint8), "labelTrainIds": train.astype(np.uint8), "color": rgb,
              "instanceIds": (ids * 1000).astype(np.uint16)}  # fmt: skip
    for i in range(2):
        images(raw, f"x_{i}_leftImg8bit", folder="leftImg8bit/train/x")
        for ending in endings:
            save(raw / "gtFine" / "train" / "x" / f"x_{i}_gtFine_{ending}.png", values[ending])
    return ids


TRAIN_NAMES = "\n".join(cityscapes_names(train_ids=True).values())


@pytest.mark.parametrize(
    ("endings", "names"),
    [
        (("labelIds", "labelTrainIds", "color", "instanceIds"), TRAIN_NAMES),
        (("labelIds", "labelTrainIds", "color", "instanceIds"), ""),
        (("labelIds", "color", "instanceIds"), ""),
        (("labelTrainIds", "color"), TRAIN_NAMES),
        (("color",), ""),
        (("color",), TRAIN_NAMES),
    ],
)
def test_the_version_that_fits_the_list_is_read(tmp_path, endings, names):
    ids = cityscapes(tmp_path, *endings)
    if names:
        (tmp_path / "classes.txt").write_text(names)
    found, plan = read(tmp_path)
    assert texts(found) == {"road", "sidewalk", "car", "bicycle"}
    for text, number in (("road", 7), ("sidewalk", 8), ("car", 26), ("bicycle", 33)):
        np.testing.assert_array_equal(found["train", "x_0", text], ids == number)
    unread = [line for line in plan.problems.notes if "are not read" in line]
    assert len(unread) == len(endings) - 1  # one line for a version, not one for a file
    assert not any("gtFine" in line and "without" in line for line in plan.problems.left_out)


ALL_NAMES = "\n".join(name for number, name in CITYSCAPES_ALL.items() if number >= 0)


@pytest.mark.parametrize(
    ("endings", "names", "read_is"),
    [
        (("labelIds",), TRAIN_NAMES, "labelIds"),
        (("labelIds",), "\n".join(reversed(TRAIN_NAMES.split("\n"))), "labelIds"),
        (("labelTrainIds",), ALL_NAMES, "labelTrainIds"),
        (("labelTrainIds",), ALL_NAMES + "\nlicense plate", "labelTrainIds"),
        (("labelIds", "labelTrainIds"), ALL_NAMES, "labelIds"),
        (("labelIds", "labelTrainIds", "color"), TRAIN_NAMES, "labelTrainIds"),
    ],
)
def test_the_names_of_cityscapes_files_say_their_numbers(tmp_path, endings, names, read_is):
    ids = cityscapes(tmp_path, *endings)
    (tmp_path / "classes.txt").write_text(names)
    found, plan = read(tmp_path)
    extra = {"static"} if read_is == "labelIds" and "static" in names else set()
    assert texts(found) == {"road", "sidewalk", "car", "bicycle"} | extra
    for text, number in (("road", 7), ("sidewalk", 8), ("car", 26), ("bicycle", 33)):
        np.testing.assert_array_equal(found["train", "x_0", text], ids == number)
    assert f"{read_is}.png" in plan.splits["train"][0].labels.path
    assert not {"ego vehicle", "rectification border", "out of roi"} & set(plan.classes)


def test_the_ego_vehicle_is_void_in_cityscapes_lists(tmp_path):
    write(tmp_path, [blocks(of=(1, 7, 26)).astype(np.uint8)] * 2, classes__txt=ALL_NAMES)
    assert texts(read(tmp_path)[0]) == {"road", "car"}
    (tmp_path / "classes.txt").write_text("road\nego vehicle")
    assert "ego vehicle" in texts(read(tmp_path)[0])


def test_some_of_cityscapes_names_need_its_ids(tmp_path):
    cityscapes(tmp_path, "labelIds")
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    with pytest.raises(UserError, match="road has the number 0, but in files called \\*_labelIds it is 7"):
        read(tmp_path)
    (tmp_path / "classes.txt").write_text("7 road\n26 car\n")
    assert texts(read(tmp_path)[0]) == {"road", "car"}


def test_an_image_without_the_version_that_is_read_is_left_out(tmp_path):
    cityscapes(tmp_path, "labelIds", "labelTrainIds")
    (tmp_path / "gtFine" / "train" / "x" / "x_1_gtFine_labelTrainIds.png").unlink()
    (tmp_path / "classes.txt").write_text(TRAIN_NAMES)
    found, plan = read(tmp_path)
    assert {image for _, image, _ in found} == {"x_0"}
    assert any("x_1_leftImg8bit.jpg has no mask" in line for line in plan.problems.left_out)


def test_versions_that_fit_equally_are_an_error(tmp_path):
    write(tmp_path, [blocks().astype(np.uint8)] * 2, classes__txt="a\nb\nc")
    for i in range(2):
        save(tmp_path / "masks" / f"{i}.png", blocks(5).astype(np.uint8))
    with pytest.raises(UserError, match=r"labels/\*.png fits classes.txt as well as masks/\*.png; keep one"):
        read(tmp_path)


def test_versions_none_of_which_fits_are_an_error(tmp_path):
    write(tmp_path, [blocks(of=(7, 8)).astype(np.uint8)] * 2, classes__txt="a\nb\nc")
    for i in range(2):
        save(tmp_path / "masks" / f"{i}.png", blocks(of=(9, 11)).astype(np.uint8))
    with pytest.raises(UserError, match=r"none of them fits classes\.txt"):
        read(tmp_path)


def test_camvid_as_it_is_published(tmp_path):
    numbers = blocks(of=range(5))
    images(tmp_path, "0", "1", folder="701_StillsRaw_full")
    for i in range(2):
        save(tmp_path / "LabeledApproved_full" / f"{i}_L.png", as_colours(numbers))
    (tmp_path / "label_colors.txt").write_text(CAMVID)
    found, plan = read(tmp_path)
    np.testing.assert_array_equal(found["train", "0", "sky"], numbers == 2)
    assert texts(found) == {"animal", "bicyclist", "sky", "road"}
    assert plan.problems.left_out == []


def test_ade20k_as_it_is_published(tmp_path):
    numbers = blocks(of=(0, 1, 2, 150))
    for split in ("training", "validation"):
        images(tmp_path, f"ADE_{split}_1", folder=f"images/{split}")
        save(tmp_path / "annotations" / split / f"ADE_{split}_1.png", numbers.astype(np.uint8))
    rows = [f"{i}\t0.1\t9\t9\t0\t{'wall' if i == 1 else f'thing {i}, other'}" for i in range(1, 151)]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *rows]))
    (tmp_path / "sceneCategories.txt").write_text("ADE_training_1 street\n")
    found, plan = read(tmp_path)
    assert texts(found) == {"wall", "thing 2", "thing 150"}
    np.testing.assert_array_equal(found["train", "ADE_training_1", "thing 150"], numbers == 150)
    assert "the number 0 has no name in objectInfo150.txt" in plan.problems.left_out[0]


def test_what_labelme2voc_writes_is_read_once(tmp_path):
    numbers = blocks(of=(0, 1, 2))
    images(tmp_path, "a", "b", folder="JPEGImages")
    for name in "ab":
        save(tmp_path / "SegmentationClass" / f"{name}.npy", numbers.astype(np.int32))
        save(tmp_path / "SegmentationClassPNG" / f"{name}.png", numbers.astype(np.uint8))
        for folder in ("SegmentationClassVisualization", "SegmentationObjectVisualization"):
            images(tmp_path, name, folder=folder)
        save(tmp_path / "SegmentationObject" / f"{name}.npy", numbers)
        save(tmp_path / "SegmentationObjectPNG" / f"{name}.png", numbers.astype(np.uint8))
    (tmp_path / "class_names.txt").write_text("_background_\naeroplane\ncar")
    found, plan = read(tmp_path)
    assert {key[1:] for key in found} == {(name, text) for name in "ab" for text in ("aeroplane", "car")}
    assert plan.problems.left_out == []
    assert len([line for line in plan.problems.notes if "are not read" in line]) == 5
    assert any(
        "SegmentationObjectPNG/ are not read; they have numbers of objects" in line
        for line in plan.problems.notes
    )


@pytest.mark.parametrize("names", ["{}_mask{}.png", "masks/{}{}.png"])
def test_masks_of_one_image_are_united(tmp_path, names):
    two = np.zeros((H, W), np.uint8)
    two[30:, 40:] = 255
    one = np.zeros((H, W), np.uint8)
    one[:8, :8] = 255
    images(tmp_path, "benign (1)", "benign (2)", folder="images" if "/" in names else ".")
    for name, part, mask in (("benign (1)", "", one), ("benign (1)", "_1", two), ("benign (2)", "", one)):
        save(tmp_path / names.format(name, part), mask)
    (tmp_path / "phrases.txt").write_text("the lesion")
    found, plan = read(tmp_path)
    np.testing.assert_array_equal(found["train", "benign (1)", "the lesion"], (one | two) > 0)
    assert len(found) == 2
    assert plan.problems.left_out == []
    stem = f"{'benign (1)'}{'' if '/' in names else '_mask'}"
    lines = [f"{stem}.png\tthe upper lesion", f"{stem}_1.png\tthe lower lesion", "benign (2).jpg\tthe lesion"]
    (tmp_path / "phrases.txt").write_text("\n".join(lines))
    found, _ = read(tmp_path)
    np.testing.assert_array_equal(found["train", "benign (1)", "the lower lesion"], two > 0)
    np.testing.assert_array_equal(found["train", "benign (1)", "the upper lesion"], one > 0)


def test_numbers_of_images_are_no_numbers_of_parts(tmp_path):
    images(tmp_path, "leaf_1", "leaf_2", folder=".")
    for i, mask in ((1, ONE), (2, TWO)):
        save(tmp_path / f"leaf_mask_{i}.png", (mask * 255).astype(np.uint8))
    (tmp_path / "phrases.txt").write_text("the leaf")
    found, _ = read(tmp_path)
    np.testing.assert_array_equal(found["train", "leaf_1", "the leaf"], ONE == 1)
    np.testing.assert_array_equal(found["val", "leaf_2", "the leaf"], TWO == 1)


def test_several_phrases_of_one_image(tmp_path):
    write(
        tmp_path,
        [(m * 255).astype(np.uint8) for m in (ONE, TWO)],
        phrases__txt="0\ta leaf\n0\tthe leaf\n1\ta cat",
    )
    found, _ = read(tmp_path)
    assert {key[1:] for key in found} == {("0", "a leaf"), ("0", "the leaf"), ("1", "a cat")}
