"""ReferShapes: determinism, splits, masks, and a proof that every expression singles out one object.

The proof does not trust the sampler: `resolve` below reads the text alone, with its own vocabulary.
"""

import re

import numpy as np
import pytest
from scipy import ndimage

from genmask_jax.data.refershapes.hand_drawn import MIN_CONTRAST, HandDrawn
from genmask_jax.data.refershapes.kinds import KINDS, coverage
from genmask_jax.data.refershapes.scene import RADII, Scene
from genmask_jax.data.refershapes.source import MIN_VISIBLE, SPLITS, ReferShapesGenerate, ReferShapesSegment
from genmask_jax.data.refershapes.styles import COLOURS, MUTED, STYLES, VARIED, Style
from genmask_jax.utils.errors import UserError

SIZE = 64
EXPRESSION = re.compile(
    r"the (?:(?P<size>small|large) )?"
    r"(?:(?P<colour>red|green|blue|yellow|purple|orange|cyan|white|pink|black) )?"
    r"(?P<noun>circle|square|triangle|star|diamond|cross|heart|ring|object|thing)"
    r"(?: (?P<place>on the left|on the right|at the top|at the bottom))?"
)
PROMPT_ITEM = re.compile(r"(an?) (?:(small|large) )?(\w+) (\w+)")


def resolve(text: str, scene: Scene, style: Style = MUTED) -> list[int]:
    """Indices of the shapes that a text may mean: all those within a clear margin of the named place.

    In muted scenes, each shape is small or large. In varied ones, the widest gap between the sizes of the
    shapes that fit otherwise separates small from large ones.
    """
    said = EXPRESSION.fullmatch(text)
    assert said, f"not in the language: {text!r}"
    fits = [
        i
        for i, shape in enumerate(scene.shapes)
        if said["colour"] in (None, shape.colour) and said["noun"] in ("object", "thing", shape.kind)
    ]
    if said["size"] and (len(fits) == 1 or style is MUTED):
        fits = [i for i in fits if scene.shapes[i].size == said["size"]]
    elif said["size"]:
        radii = np.sort([scene.shapes[i].radius for i in fits])
        ratios = radii[1:] / radii[:-1]
        between = np.sqrt(radii[1:] * radii[:-1])[ratios.argmax()]
        assert ratios.max() > 1.25, "sizes that are hard to tell apart"
        fits = [i for i in fits if (scene.shapes[i].radius > between) == (said["size"] == "large")]
    if said["place"] is None or not fits:
        return fits
    side = said["place"].split()[-1]
    axis, sign = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}[side]
    reach = {i: sign * scene.shapes[i].centre[axis] for i in fits}
    return [i for i in fits if reach[i] > max(reach.values()) - 0.1 * scene.image.shape[0]]


@pytest.mark.parametrize(("split", "style"), [*((split, "muted") for split in SPLITS), ("train", "varied")])
def test_each_expression_fits_exactly_one_object(split, style):
    source = ReferShapesSegment(split, SIZE, style=STYLES[style])
    for i in range(1000):
        made = source.compose(i)
        assert made.target != made.other
        assert resolve(made.text, made.scene, source.style) == [made.target], (split, i, made.text)
        assert resolve(made.other_text, made.scene, source.style) == [made.other], (split, i, made.other_text)


def test_resolve_finds_ambiguity():
    """The proof can fail: most expressions of one scene do not single out an object of another."""
    source = ReferShapesSegment("val", SIZE)
    scenes, texts = zip(*((m.scene, m.text) for m in map(source.compose, range(300))), strict=True)
    counts = [len(resolve(text, scene)) for text, scene in zip(texts, scenes[1:] + scenes[:1], strict=True)]
    assert np.mean(np.array(counts) != 1) > 0.5


def test_sizes_that_are_named_differ_clearly():
    shapes = [s for i in range(300) for s in ReferShapesSegment("train", SIZE).compose(i).scene.shapes]
    radius = {size: [s.radius for s in shapes if s.size == size] for size in ("small", "large")}
    assert min(radius["large"]) > 1.3 * max(radius["small"])


def test_examples_have_the_documented_arrays():
    for size in (64, 96):
        example = ReferShapesSegment("train", size)[7]
        assert example["image"].shape == (size, size, 3)
        assert example["image"].dtype == np.uint8
        for name in ("mask", "other_mask", "objects_mask"):
            assert example[name].shape == (size, size)
            assert example[name].dtype == np.uint8
            assert set(np.unique(example[name])) == {0, 1}
        assert ReferShapesGenerate("train", size)[7]["image"].shape == (size, size, 3)


@pytest.mark.parametrize("source", [ReferShapesSegment, ReferShapesGenerate])
def test_examples_depend_on_index_split_and_seed_alone(source):
    first, again = source("train", SIZE), source("train", SIZE)
    again[3]  # Reading another example first changes nothing.
    for name, value in first[11].items():
        np.testing.assert_array_equal(value, again[11][name])
    others = (first[12], source("val", SIZE)[11], source("train", SIZE, seed=1)[11])
    assert all((other["image"] != first[11]["image"]).any() for other in others)


def test_no_image_is_in_two_splits_or_tasks_or_twice():
    sources = [task(split, SIZE) for task in (ReferShapesSegment, ReferShapesGenerate) for split in SPLITS]
    images = [source[i]["image"].tobytes() for source in sources for i in range(300)]
    assert len(set(images)) == len(images)


def test_masks_are_disjoint_and_mostly_visible():
    source = ReferShapesSegment("test", SIZE)
    for i in range(500):
        scene = source.compose(i).scene
        assert 2 <= len(scene.shapes) <= 5
        assert scene.masks.sum(0).max() == 1
        for shape, mask in zip(scene.shapes, scene.masks, strict=True):
            _, share = coverage(shape.kind, shape.centre, shape.radius, shape.angle, SIZE)
            assert mask.sum() >= MIN_VISIBLE * (share > 0.5).sum() > 50


def test_masks_are_what_is_drawn():
    """Within a mask the image has its object's colour, and away from all masks no object's colour."""
    source = ReferShapesSegment("val", SIZE)
    palette = np.array(list(MUTED.colours.values()), float)
    for i in range(200):
        scene = source.compose(i).scene
        for shape, mask in zip(scene.shapes, scene.masks, strict=True):
            core = ndimage.binary_erosion(mask, iterations=2)
            assert np.abs(scene.image[core] - shape.rgb).max() <= 1
        background = scene.image[~ndimage.binary_dilation(scene.masks.any(0), iterations=2)]
        assert np.linalg.norm(background[:, None] - palette, axis=-1).min() > 30


def test_example_holds_the_masks_of_the_named_objects():
    source = ReferShapesSegment("test", SIZE)
    for i in range(100):
        example, made = source[i], source.compose(i)
        np.testing.assert_array_equal(example["image"], made.scene.image)
        target, other = (resolve(example[name], made.scene)[0] for name in ("text", "other_text"))
        np.testing.assert_array_equal(example["mask"], made.scene.masks[target])
        np.testing.assert_array_equal(example["other_mask"], made.scene.masks[other])
        np.testing.assert_array_equal(example["objects_mask"], made.scene.masks.any(0))


def test_group_names_what_the_text_says():
    source = ReferShapesSegment("train", SIZE)
    groups = set()
    for i in range(500):
        example = source[i]
        said = EXPRESSION.fullmatch(example["text"]).groupdict()
        said["kind"] = None if said["noun"] in ("object", "thing") else said["noun"]
        names = [name for name in ("size", "colour", "kind", "place") if said[name]]
        assert example["group"] == "+".join(names)
        groups.add(example["group"])
    assert {"colour", "kind", "colour+kind", "place", "kind+place", "size+kind"} <= groups


AREAS = {
    "circle": np.pi * 0.92**2,
    "square": 1.52**2,
    "triangle": 3 * np.sqrt(3) * 0.55**2,
    "star": 5 * 0.45 * np.sin(np.pi / 5),
    "diamond": 2 * 0.62,
    "cross": 2 * 0.6 * 1.84 - 0.6**2,
    "heart": (2 + np.pi / 2) * 0.8**2,
    "ring": np.pi * (0.92**2 - 0.44**2),
}
"""Of each kind with radius 1, by geometry."""


@pytest.mark.parametrize("kind", KINDS)
def test_coverage_has_the_area_of_the_shape_at_any_angle(kind):
    for angle in (0.0, 0.17):
        _, share = coverage(kind, (50.3, 49.6), 40.0, angle, 100)
        assert share.sum() == pytest.approx(AREAS[kind] * 40**2, rel=0.02)


def test_prompts_list_every_object():
    """Each colour of the prompt is in the image, over the area of a shape, and no other colour is."""
    source = ReferShapesGenerate("test", SIZE)
    palette = np.array(list(MUTED.colours.values()), float)
    counts = []
    for i in range(400):
        example = source[i]
        items = [PROMPT_ITEM.fullmatch(item) for item in re.split(", | and ", example["text"])]
        assert all(item and item[3] in COLOURS and item[4] in KINDS for item in items), example["text"]
        assert all((item[1] == "an") == (not item[2] and item[3] == "orange") for item in items)
        distance = np.linalg.norm(example["image"][:, :, None] - palette, axis=-1)
        areas = (distance < 20).sum((0, 1))
        seen = {name for name, area in zip(MUTED.colours, areas, strict=True) if area > 40}
        assert seen == {item[3] for item in items}, example["text"]
        counts.append(len(items))
    assert set(counts) == {1, 2, 3}
    assert 0.4 < np.mean(np.array(counts) == 1) < 0.6


def test_an_unknown_split_and_an_index_outside_are_refused():
    for source in (ReferShapesSegment, ReferShapesGenerate):
        with pytest.raises(UserError, match="no split 'dev'; splits: train, val, test"):
            source("dev", SIZE)
        for index in (-1, SPLITS["val"]):
            with pytest.raises(IndexError):
                source("val", SIZE)[index]


def test_training_avoids_colours_that_would_do():
    """Held-out expressions are drawn as ever; training ones give kind, size and place more often instead."""
    share = {}
    for split in ("train", "val"):
        source = ReferShapesSegment(split, SIZE)
        share[split] = np.mean(["colour" in source.compose(i).group for i in range(400)])
    assert share["train"] < 0.35 < 0.45 < share["val"]


def test_varied_scenes_have_what_people_draw():
    """Plain and light backgrounds, colours that stand out from them, and every kind, colour and size."""
    source = ReferShapesSegment("train", SIZE, style=VARIED)
    scenes = [source.compose(i).scene for i in range(400)]
    corners = np.array([scene.image[0, 0] for scene in scenes]).mean(-1)
    plain = [len(np.unique(scene.image[[0, 0, -1, -1], [0, -1, 0, -1]], axis=0)) == 1 for scene in scenes]
    assert 0.4 < np.mean(plain) < 0.6
    assert np.mean(corners > 200) > 0.15
    assert np.mean(corners < 60) > 0.1
    shapes = [shape for scene in scenes for shape in scene.shapes]
    assert {shape.kind for shape in shapes} == set(KINDS)
    assert {shape.colour for shape in shapes} == set(COLOURS)
    radii = np.array([shape.radius for shape in shapes]) / SIZE
    assert radii.min() < RADII[0] + 0.01
    assert radii.max() > RADII[1] - 0.01
    turns = [shape.angle for shape in shapes if shape.kind == "triangle"]
    assert np.ptp(turns) > 1.5
    for scene in scenes:
        if any(any(shape.shadow) for shape in scene.shapes):  # it may fall on another shape
            continue
        for shape, mask in zip(scene.shapes, scene.masks, strict=True):
            core = ndimage.binary_erosion(mask, iterations=4 if shape.outline else 2)
            assert np.abs(scene.image[core] - shape.rgb).max(initial=0) <= 1


def test_absent_expressions_refer_to_nothing():
    for style in STYLES.values():
        source = ReferShapesSegment("train", SIZE, style=style)
        for i in range(300):
            (text,) = source.full_size(i)["absent"]
            assert resolve(text, source.compose(i).scene, style) == [], text


@pytest.mark.parametrize("style", STYLES)
def test_scored_absent_expressions_name_a_kind_a_colour_or_both(style):
    source = ReferShapesSegment("test", SIZE, style=STYLES[style])
    examples = [source[i] for i in range(300)]
    for i, example in enumerate(examples):
        text, group = example["absent_text"], example["absent_group"]
        assert resolve(text, source.compose(i).scene, STYLES[style]) == [], text
        said = EXPRESSION.fullmatch(text)
        given = {"colour": said["colour"], "kind": said["noun"] in KINDS}
        assert group == "+".join(name for name, value in given.items() if value)
    groups, counts = np.unique([example["absent_group"] for example in examples], return_counts=True)
    assert groups.tolist() == ["colour", "colour+kind", "kind"]
    assert (counts > 50).all()
    again = ReferShapesSegment("test", SIZE, style=STYLES[style])
    assert [again[i]["absent_text"] for i in (7, 3)] == [examples[i]["absent_text"] for i in (7, 3)]


def test_hand_drawn_scenes():
    """The mask is the named shape's pixels in the image as it was drawn, at its own size."""
    source, groups = HandDrawn(SIZE), set()
    for i in range(40):
        example, image = source[i], source.image(i)
        assert example["image"].shape == (SIZE, SIZE, 3)
        assert example["mask"].shape == image.shape[:2]
        assert 200 <= image.shape[1] <= 800
        assert image.shape[0] in (image.shape[1], image.shape[1] * 3 // 4)
        core = ndimage.binary_erosion(example["mask"] > 0, iterations=3)
        (colour,) = np.unique(image[core], axis=0)
        assert np.linalg.norm(colour.astype(float) - image[0, 0]) >= MIN_CONTRAST
        assert not (example["mask"] & example["other_mask"]).any()
        groups.add(example["group"])
        *colour, noun = example["absent_text"].split()[1:]
        for there in source._draw(i)[2]:
            assert not {*colour, noun} <= {*there, "object"}
    assert groups == {
        f"{said} on {on}" for said in ("kind", "colour", "colour+kind") for on in ("light", "dark")
    }
