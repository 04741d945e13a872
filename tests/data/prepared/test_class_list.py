"""Lists of classes, as tools and people write them: the number and the colour of every name."""

import json

import pytest
from etils import epath

from genmask_jax.data.raw_formats.class_list import read_class_list
from genmask_jax.data.raw_formats.names import is_background, is_class, is_ignored, phrase
from genmask_jax.utils.errors import UserError


def classes(folder, **files):
    """The list of a folder with these files; `__` stands for a dot, and a value may be bytes."""
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_class_list(epath.Path(folder))


NUMBERS = {
    "a name a line": ("road\nsky\n", {0: "road", 1: "sky"}),
    "labelme's, whose first line is -1": ("__ignore__\n_background_\ncar\n",
                                          {-1: "__ignore__", 0: "_background_", 1: "car"}),
    "a name that begins with #": ("road\n#1 fan\nsky", {0: "road", 1: "#1 fan", 2: "sky"}),
    "a first name that begins with #": ("#road\nsky", {0: "#road", 1: "sky"}),
    "a comment above": ("# my classes\nroad\nsky", {0: "road", 1: "sky"}),
    "an empty line counts": ("road\n\nsky\n\n\n", {0: "road", 2: "sky"}),
    "BOM and CRLF": (b"\xef\xbb\xbfroad\r\nsky\r\n", {0: "road", 1: "sky"}),
    "UTF-16": ("дорога\nsky".encode("utf-16"), {0: "дорога", 1: "sky"}),
    "numbers first": ("0 road\n7: sky\n-1 none", {0: "road", 7: "sky", -1: "none"}),
    "numbers first, and comments": ("# x\n0 road\n# y\n\n7 sky", {0: "road", 7: "sky"}),
    "numbers first, tabs": ("0\tthe road\n1\tsky", {0: "the road", 1: "sky"}),
    "numbers last": ("road 1\nsky 0", {1: "road", 0: "sky"}),
    "numbers last, commas": ("road,1\nsky,0", {1: "road", 0: "sky"}),
    "quoted": ('"light, red",1\n"sky",0', {1: "light, red", 0: "sky"}),
    "numbers in names": ("car\n2 wheeler\n4 wheeler", {0: "car", 1: "2 wheeler", 2: "4 wheeler"}),
    "numbers in all names": ("2 wheeler\n4 wheeler", {0: "2 wheeler", 1: "4 wheeler"}),
    "one name with a number": ("2 wheeler", {0: "2 wheeler"}),
    "numbers behind all names": ("lane 1\nlane 2", {0: "lane 1", 1: "lane 2"}),
    "one numbered name": ("1 road", {1: "road"}),
    "0. sky": ("0. road\n1. sky", {0: "road", 1: "sky"}),
    "0) sky": ("0) road\n1) sky", {0: "road", 1: "sky"}),
    "0 - sky": ("0 - road\n1 - sky", {0: "road", 1: "sky"}),
    "0=sky": ("0=road\n1=sky", {0: "road", 1: "sky"}),
    "[0] sky": ("[0] road\n[1] sky", {0: "road", 1: "sky"}),
    "sky = 0": ("road = 1\nsky = 0", {1: "road", 0: "sky"}),
    "sky (0)": ("road (1)\nsky (0)", {1: "road", 0: "sky"}),
    "from one on": ("1. road\n2. sky", {1: "road", 2: "sky"}),
    "names with dashes and points": ("2-wheeler\n2.5D", {0: "2-wheeler", 1: "2.5D"}),
    "pandas' table": (",name\n0,road\n1,sky", {0: "road", 1: "sky"}),
    "a table": ("id,name\n3,road\n0,sky", {3: "road", 0: "sky"}),
    "a table with columns the other way": ("name;class_id\nroad;3", {3: "road"}),
    "Roboflow's": ("Pixel Value, Class\n0, background\n1, leaf", {0: "background", 1: "leaf"}),
    "ADE20K's objectInfo150": ("Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t1\t1\t1\twall\n2\t0.1\t1\t1\t1\t"
                               "building, edifice", {1: "wall", 2: "building, edifice"}),
}  # fmt: skip


@pytest.mark.parametrize("case", NUMBERS)
def test_the_number_of_every_name(tmp_path, case):
    content, expected = NUMBERS[case]
    assert classes(tmp_path, classes__txt=content).names == expected


@pytest.mark.parametrize("heading", ["class", "Name", "classes", "label", '"category"', "class_name"])
@pytest.mark.parametrize("file", ["classes__csv", "classes__txt"])
def test_the_heading_of_one_column_is_no_class(tmp_path, file, heading):
    assert classes(tmp_path, **{file: f"{heading}\nroad\nsky"}).names == {0: "road", 1: "sky"}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("classes__json", '["__ignore__", "_background_", "car"]'),
        ("classes__yaml", "names: [__ignore__, _background_, car]"),
    ],
)
def test_labelmes_first_name_is_minus_one_in_every_format(tmp_path, file, content):
    assert classes(tmp_path, **{file: content}).names == {-1: "__ignore__", 0: "_background_", 1: "car"}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("classes__json", '[null, "car"]'),
        ("classes__json", '{"0": null, "1": "car"}'),
        ("classes__yaml", "names:\n-\n- car"),
        ("classes__yaml", "names: {0: null, 1: car}"),
        ("classes__yaml", "names: [~, car]"),
    ],
)
def test_nobody_asks_for_null(tmp_path, file, content):
    names = classes(tmp_path, **{file: content}).names
    assert names[1] == "car"
    assert is_ignored(names[0])


def test_the_first_of_ades_synonyms_is_asked_for(tmp_path):
    content = NUMBERS["ADE20K's objectInfo150"][0]
    assert classes(tmp_path, objectInfo150__txt=content).names == {1: "wall", 2: "building"}


@pytest.mark.parametrize(
    "content",
    [
        "names: [no, yes, on]",
        "names: {0: no, 1: yes, 2: on}",
        "names:\n- no\n- yes\n- on\nnc: 3",
        "names: {no: 0, yes: 1, on: 2}",
        "classes: [no, yes, on]",
    ],
)
def test_yaml_has_words_and_no_truth_values(tmp_path, content):
    assert classes(tmp_path, data__yaml=content).names == {0: "no", 1: "yes", 2: "on"}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("classes__json", ["road", "sky"]),
        ("id2label__json", {"0": "road", "1": "sky"}),
        ("config__json", {"model_type": "segformer", "id2label": {"0": "road", "1": "sky"}}),
        ("classes__json", {"road": 0, "sky": 1}),
        ("classes__json", [{"id": 1, "name": "sky"}, {"id": 0, "name": "road"}]),
        ("classes__json", {"labels": [{"readable": "road", "name": "a--b"}, {"readable": "sky"}]}),
    ],
)
def test_json_lists(tmp_path, file, content):
    assert classes(tmp_path, **{file: json.dumps(content)}).names == {0: "road", 1: "sky"}


COLOURS = {
    "CamVid's": ("label_colors__txt", "64 128 64\tAnimal\n192 0 128\t\tArchway\n0 0 0\t\tVoid\n",
                 {0x408040: "Animal", 0xC00080: "Archway", 0: "Void"}),
    "CVAT's": ("labelmap__txt",
               "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad sign:64,128,64:a,b:\n",
               {0: "background", 0x408040: "road sign"}),
    "class_dict.csv": ("class_dict__csv", "name,r,g,b\nAnimal,64,128,64\nVoid,0,0,0\n",
                       {0x408040: "Animal", 0: "Void"}),
    "a table of colours": ("class_colors__csv", 'label;color\nroad;"64,128,64"\n', {0x408040: "road"}),
    "names first": ("label_colors__txt", "road 64 128 64\nsky,0,0,255\n", {0x408040: "road", 0xFF: "sky"}),
    "hex": ("label_colors__txt", "road #408040\nsky #0000ff", {0x408040: "road", 0xFF: "sky"}),
    "JSON": ("label_colors__json", '{"road": [64, 128, 64], "sky": [0, 0, 255]}',
             {0x408040: "road", 0xFF: "sky"}),
    "Supervisely's": ("meta__json", '{"classes": [{"title": "road", "color": "#408040"}]}',
                      {0x408040: "road"}),
}  # fmt: skip


@pytest.mark.parametrize("case", COLOURS)
def test_the_colour_of_every_name(tmp_path, case):
    file, content, expected = COLOURS[case]
    assert classes(tmp_path, **{file: content}).colours == expected


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("0 road\nsky\n", "'sky' has no number"),
        ("road,0\nsky\n", "'sky' has no number"),
        ("0. road\nsky\n", "'sky' has no number"),
        ("0 road\n0 sky\n", "the number 0 has two names"),
        ("road 1\n2 sky\n", "some lines begin with a number, others end with one"),
        ("road\n# sky\n", "line 2 may be a comment"),
        ("road, sky, car", "is only one line; write one name per line"),
        ("", "has no class name"),
        ("id,name\n3,road\nx,sky", "line 3 does not match the heading"),
        ("64 128 64 road\n64 128 64 sky", r"the colour \(64, 128, 64\) has two names"),
    ],
)
def test_what_cannot_be_understood_is_one_line(tmp_path, content, says):
    with pytest.raises(UserError, match=says) as error:
        classes(tmp_path, classes__txt=content)
    assert "\n" not in str(error.value)


def test_two_lists_agree_or_are_named(tmp_path):
    both = {"labels__txt": "__ignore__\n_background_\ncar\n", "class_names__txt": "_background_\nCar"}
    assert classes(tmp_path, **both).names == {-1: "__ignore__", 0: "_background_", 1: "Car"}
    with pytest.raises(UserError, match=r"class_names.txt and .*labels.txt have different names"):
        classes(tmp_path, class_names__txt="_background_\ndog")


def test_files_of_general_names_are_lists_only_if_they_hold_one(tmp_path):
    other = {"config__json": '{"epochs": 3}', "meta__json": "{", "data__csv": "a,b\n1,2\n",
             "labels__json": '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}',
             }  # fmt: skip
    assert classes(tmp_path, **other) is None
    assert classes(tmp_path, **other, classes__txt="road").names == {0: "road"}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("data__json", '[{"id": 0, "name": "a.jpg"}, {"id": 1, "name": "b.jpg"}]'),
        ("data__json", '[{"file": "a.jpg", "label": "cat"}, {"file": "b.jpg", "label": "dog"}]'),
        ("data__json", '{"0": {"image": "a.jpg", "label": "cat"}}'),
        ("data__json", '{"a.jpg": 0, "b.jpg": 1}'),
        ("data__json", '{"a": 0, "b": 1}'),
        ("labels__csv", "filename,label\na.jpg,cat\nb.jpg,dog"),
    ],
)
def test_names_of_images_are_no_classes(tmp_path, file, content):
    (tmp_path / "images").mkdir()
    for name in "ab":
        (tmp_path / "images" / f"{name}.jpg").touch()
    assert classes(tmp_path, **{file: content}) is None
    assert classes(tmp_path, classes__txt="road\nsky").names == {0: "road", 1: "sky"}


def test_lists_are_found_in_folders(tmp_path):
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, leaf")
    assert classes(tmp_path).names == {0: "background", 1: "leaf"}
    (tmp_path / "valid" / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, tree")
    with pytest.raises(
        UserError, match="different names: the number 1 is leaf in the first and tree in the second"
    ):
        classes(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["__ignore__", "_ignore_", "Ignore", "IGNORED", "void class", "Class_Void", "ignored region",
     "unlabeled area", "Unlabelled", "un-labelled", "UNLABELED", "Don't care", "dont_care", "DontCare",
     "No label", "ignore_255", "to_ignore", "region to ignore", "void_border",
     "non labeled", "out of roi", "N/A", "null", "NaN", "~"],
)  # fmt: skip
def test_classes_that_do_not_count(name):
    assert is_ignored(name)
    assert not is_class(name)


@pytest.mark.parametrize(
    "name",
    ["background", "__background__", "_background_", "BG", "Back ground", "Background class", "no object"],
)
def test_classes_that_nobody_asks_for(name):
    assert is_background(name)
    assert not is_class(name)


@pytest.mark.parametrize(
    "name", ["avoid", "class", "label", "the area", "voidance", "bag", "ignorance", "no", "border", "na"]
)
def test_other_classes_are_asked_for(name):
    assert is_class(name)


def test_names_are_asked_for_with_spaces():
    assert phrase(" Traffic_Light__red ") == "traffic light red"
