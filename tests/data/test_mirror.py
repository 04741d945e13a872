"""Which texts are mirrored with their images, how, and why others are not."""

import dataclasses

import pytest

from genmask_jax.config import AugmentConfig, DataConfig
from genmask_jax.data import english
from genmask_jax.data.mirror import SWAPS, mirror, report, unmirrorable_words
from genmask_jax.data.sources import texts
from genmask_jax.sharding import MeshConfig
from genmask_jax.utils.errors import UserError
from tests.conftest import micro_config, start

MIRRORED = {
    "left": "right",
    "the right": "the left",
    "on the left": "on the right",
    "the Left leaf, right of the leftmost": "the Right leaf, left of the rightmost",
    "the man's LEFT hand": "the man's RIGHT hand",
    "the dogs' right ears": "the dogs' left ears",
    "the women\u2019s right shoes": "the women\u2019s left shoes",
    "in his left hand": "in his right hand",
    "man on the far right": "man on the far left",
    "bottom-left corner": "bottom-right corner",
    "the right-hand side of the road": "the left-hand side of the road",
    "left most car": "right most car",
    "right zebra": "left zebra",
    "the left red car": "the right red car",
    "a dog to the right of the man": "a dog to the left of the man",
    "left of the tree": "right of the tree",
    "second from the left": "second from the right",
    "2nd zebra from left": "2nd zebra from right",
    "from left to right": "from right to left",
    "the car facing left": "the car facing right",
    "on the left behind the bus": "on the right behind the bus",
    "left_eye": "right_eye",
    "Right Shoe.": "Left Shoe.",
    "the bright upright lamp": "the bright upright lamp",
    "stop sign": "stop sign",
    "a photograph with sky, road and cars": "a photograph with sky, road and cars",
    "": "",
}
KEPT = {
    # What left and right do not mean a side in.
    "right behind": "right behind",
    "the man right behind her": "man right behind",
    "cat right next to the dog": "cat right next",
    "right now": "now",
    "right there on the left": "right there",
    "looking right at the camera": "looking right at",
    "right of way": "way",
    "right side up": "right side",
    "two cars left side by side": "left side",
    "that's right": "that's right",
    "all right": "all right",
    "the dog, right?": "right",
    "the right size": "size",
    "the right angle": "angle",
    "left behind": "left behind",
    "the one left over": "left over",
    "with the left over food": "left over",
    "what is left": "is left",
    "what's left of the cake": "left of",
    "a slice left of the pizza": "left of",
    "food left on the plate": "left on",
    "the man who left": "who left",
    "the only one left": "one left",
    "the man left of the cake": "left of",
    "plate left half eaten": "left half",
    # Which hand someone uses, and what a mirror image turns into something else.
    "left handed man": "left handed",
    "a right-handed batter": "right handed",
    "left turn sign": "turn",
    "the left lung": "lung",
    "the driver's side": "driver's",
    # Abbreviations, directions and counts of which the side is not said.
    "far rt": "rt",
    "lft": "lft",
    "R most": "r",
    "L": "l",
    "LeftHand": "lefthand",
    "port side": "port",
    "starboard": "starboard",
    "turning clockwise": "clockwise",
    "3 o'clock": "3",
    "the east side": "east",
    "the second zebra": "second",
    "the 3rd man in the row": "3rd",
    "the last one": "last",
    # What is written in the image.
    "the word STOP": "word",
    'the sign "exit"': '"',
    "player 23": "23",
    "the letter on the left": "letter",
    # Other languages, some of whose words are English ones.
    "à gauche": "à",
    "la voiture de gauche": "la",
    "das linke Auto": "das",
    "Mann links": "mann",
    "man links": "links",
    "el coche a la derecha": "el",
    "un gatto a destra": "un",
    "o carro à direita": "o",
    "de linker boot": "de",
    "lewy but": "lewy",
    "vänster hand": "vänster",
    "левый лист": "левый",
    "左边的叶子": "左边的叶子",
    "car ←": "←",
}


@pytest.mark.parametrize(("text", "mirrored"), MIRRORED.items())
def test_left_and_right_change_places(text, mirrored):
    assert unmirrorable_words(text) is None
    assert mirror(text) == mirrored
    assert unmirrorable_words(mirrored) is None
    assert mirror(mirrored) == text


@pytest.mark.parametrize(("text", "why"), KEPT.items())
def test_texts_that_may_not_be_true_of_the_mirrored_image_stay(text, why):
    found = unmirrorable_words(text)
    assert found is not None
    assert why in found


def test_words_of_the_user_are_known():
    assert unmirrorable_words("die linke Straße") == "die"
    assert unmirrorable_words("Straße") == "straße"
    assert unmirrorable_words("Straße", frozenset({"straße"})) is None
    assert unmirrorable_words("right behind the Straße", frozenset({"straße"})) == "right behind"


def test_the_list_has_no_word_for_a_side():
    sides = english.word_set("port starboard links rechts gauche droite droit east west clockwise l r lt rt")
    assert english.WORDS.isdisjoint(sides | SWAPS.keys() | {"heart", "lung", "driver", "number", "letter"})
    assert len(english.WORDS) > 1500


def test_scenes_drawn_here_are_all_mirrored():
    assert report(texts(DataConfig(), 400)) == "all 400 texts can be mirrored with their images"


def test_a_report_names_how_many_and_the_words():
    said = ["the car"] * 5 + ["das Auto"] * 3 + ["lft", "right behind"]
    assert report(said) == (
        "5 of 10 texts cannot be mirrored with their images, because of 'das' (3), 'lft' (1), "
        "'right behind' (1); add words that stay true in a mirror image to "
        "config.data.augment.flip_words"
    )
    assert report(said, ("das", "auto")).startswith("2 of 10 texts")


@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_a_run_that_mirrors_images_begins_with_the_report(micro_vae, tmp_path, caplog, flip):
    config = micro_config(micro_vae)
    data = dataclasses.replace(config.data, augment=AugmentConfig(flip=flip))
    broken = dataclasses.replace(config, data=data, mesh=MeshConfig(data=3))  # it ends after the report
    with caplog.at_level("INFO", "absl"), pytest.raises(UserError, match="mesh: data 3"):
        start(broken, tmp_path / "run")
    said = "from the start of the train split: all 200 texts can be mirrored with their images"
    for what in ("masks", "images"):
        assert (f"{what} {said}" in caplog.text) == (flip > 0)


def test_a_single_text_is_told_as_one():
    assert report(["the leaf"]) == "the only text can be mirrored with its image"
