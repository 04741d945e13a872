"""Random variations of training examples, by their pixels and words."""

import numpy as np
import pytest

from genmask_jax.config import AugmentConfig, DataConfig
from genmask_jax.data import augment
from genmask_jax.data.masks import IGNORE

RNG = np.random.default_rng


def example(text="the leaf", is_class=False, absent=(), seed=0):
    rng = RNG(seed)
    mask = np.zeros((30, 50), np.uint8)
    mask[8:20, 30:44] = 1
    mask[:4] = IGNORE
    image = np.where(mask[..., None] == 1, 200, rng.integers(0, 60, (30, 50, 3))).astype(np.uint8)
    known = {"is_class": is_class, "absent": absent, "classless": ()}
    return {"image": image, "mask": mask, "text": text, "id": "0", **known}


def vary(one, rng=None, size=64, **options):
    names = ("crop", "flip", "flip_words", "jitter")
    fields = {name: options.pop(name) for name in names if name in options}
    config = DataConfig(size=size, augment=AugmentConfig(**fields), **options)
    return augment.AugmentSegment(config).random_map(one, rng or RNG(0))


def test_a_flip_mirrors_image_mask_and_words():
    one = example("the Left leaf, right of the leftmost")
    plain, flipped = vary(one, size=30, flip=0.0), vary(one, size=30, flip=1.0)
    np.testing.assert_array_equal(flipped["image"], plain["image"][:, ::-1])
    np.testing.assert_array_equal(flipped["mask"], plain["mask"][:, ::-1])
    assert flipped["text"] == "the Right leaf, left of the rightmost"


@pytest.mark.parametrize("text", ["turning clockwise", "à gauche", "right behind", "左边的叶子"])
@pytest.mark.parametrize("is_class", [False, True])
def test_images_whose_words_cannot_be_mirrored_stay(text, is_class):
    """With their masks, or with their prompts; also those of classes. A VAE hears nothing of words."""
    one = example(text, is_class=is_class)
    flipped = vary(one, flip=1.0)
    np.testing.assert_array_equal(flipped["image"], vary(one, flip=0.0)["image"])
    np.testing.assert_array_equal(flipped["mask"], vary(one, flip=0.0)["mask"])
    assert flipped["text"] == text
    config = DataConfig(size=64, augment=AugmentConfig(flip=1.0))
    prompted = augment.AugmentGenerate(config).random_map(one, RNG(0))
    np.testing.assert_array_equal(prompted["image"], flipped["image"])
    assert prompted["text"] == text
    unheard = augment.AugmentSegment(config, with_text=False).random_map(one, RNG(0))
    np.testing.assert_array_equal(unheard["mask"], flipped["mask"][:, ::-1])


def test_words_that_the_user_adds_are_mirrored():
    one = example("Blatt on the left", is_class=True)
    assert vary(one, flip=1.0, flip_words=("blatt",))["text"] == "Blatt on the right"


def test_crops_keep_half_of_the_target_and_move_image_and_mask_together():
    one = example()
    shares, boxes = [], set()
    for seed in range(200):
        box = augment.crop_box(one["mask"], 0.2, RNG(seed))
        boxes.add((box[0].start, box[0].stop, box[1].start, box[1].stop))
        shares.append((one["mask"][box] == 1).sum() / (one["mask"] == 1).sum())
        varied = vary(one, RNG(seed), crop=0.2, size=96)
        bright = varied["image"].mean(-1) > 130
        assert np.mean(bright == (varied["mask"] == 1)) > 0.93
        assert set(np.unique(varied["mask"])) <= {0, 1}
    assert min(shares) >= 0.5
    assert np.mean(np.array(shares) < 1) > 0.1
    assert len(boxes) > 100


def test_an_empty_target_and_a_target_of_one_pixel_can_be_cropped():
    mask = np.zeros((9, 7), np.uint8)
    rows, columns = augment.crop_box(mask, 0.1, RNG(0))
    assert rows.stop > rows.start
    assert columns.stop > columns.start
    mask[4, 3] = 1
    for seed in range(50):
        assert mask[augment.crop_box(mask, 0.1, RNG(seed))].any()


@pytest.mark.parametrize(
    "text", ["the leaf on the left", "the largest leaf", "leaf in the corner", "far rt", "das linke Blatt"]
)
def test_words_of_place_or_unknown_ones_keep_the_image_whole(text):
    one = example(text)
    np.testing.assert_array_equal(vary(one, crop=0.2)["image"], vary(one, crop=1.0)["image"])


def test_the_name_of_a_class_need_not_be_known_for_a_crop():
    one = example("Blatt", is_class=True)
    assert not np.array_equal(vary(one, crop=0.2)["image"], vary(one, crop=1.0)["image"])


def test_jitter_changes_colours_alone_and_within_bounds():
    one = example()
    plain, varied = vary(one, jitter=0.0), vary(one, jitter=0.3)
    assert not np.array_equal(plain["image"], varied["image"])
    np.testing.assert_array_equal(plain["mask"], varied["mask"])
    leaf = varied["image"][varied["mask"] == 1].mean()
    assert 200 * 0.7 * 0.7 <= leaf <= 255


class Nothing(list):
    share = 0.5


def test_negatives_come_at_their_share_and_of_images_that_show_no_class_too():
    bare = example(seed=1, is_class=True, absent=("leaf", "stone")) | {"text": ""}
    whole = example("leaf", is_class=True) | {"classless": Nothing([bare])}
    partly = {**whole, "absent": ("stone",)}
    for one, of_bare in ((whole, 1.0), (partly, Nothing.share)):
        said = [vary(one, RNG(seed), absent_share=0.25) for seed in range(400)]
        empty = [x for x in said if not (x["mask"] == 1).any()]
        assert 70 <= len(empty) <= 130
        found = [x for x in empty if np.array_equal(x["image"], vary(bare)["image"])]
        assert len(found) == pytest.approx(of_bare * len(empty), abs=0.15 * len(empty))
        assert {x["text"] for x in found} == {"leaf", "stone"}
        assert {x["text"] for x in empty if not any(x is other for other in found)} <= {"stone"}
        assert all(x["text"] == "leaf" for x in said if (x["mask"] == 1).any())
    assert vary(example("leaf", is_class=True), absent_share=1.0)["text"] == "leaf"  # there is no negative


def test_templates_and_absent_classes_come_at_their_share():
    one = example("leaf", is_class=True, absent=("stone", "root"))
    options = {"templates": ("the {}", "all of the {}"), "absent_share": 0.25}
    said = [vary(one, RNG(seed), **options) for seed in range(400)]
    absent = [x for x in said if "leaf" not in x["text"]]
    assert 70 <= len(absent) <= 130
    assert {x["text"] for x in said} == {
        start + name for start in ("the ", "all of the ") for name in ("leaf", "stone", "root")
    }
    assert not any(x["mask"].any() for x in absent)


def test_prompts_are_mirrored_with_their_images_and_never_cropped():
    config = DataConfig(size=30, augment=AugmentConfig(crop=0.1, flip=1.0))
    one = {**example("a leaf on the right")}
    varied = augment.AugmentGenerate(config).random_map(one, RNG(0))
    assert varied["text"] == "a leaf on the left"
    plain = vary(example("x"), size=30)["image"]
    np.testing.assert_array_equal(varied["image"], plain[:, ::-1])
