"""Arguments of the library: accepted, or rejected with a clear message."""

import copy
import io
import json
import pathlib
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from genmask_jax import Generator, Segmentation, Segmenter, UnknownWordWarning, UserError, cli
from genmask_jax.checkpoints.runs import load_vae
from genmask_jax.inference.arguments import describe_unknown_words, read_texts
from genmask_jax.inference.load import load
from genmask_jax.utils.errors import ArgumentError
from genmask_jax.utils.images import to_rgb
from genmask_jax.utils.paths import make_directory

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


@pytest.fixture(scope="module")
def segmenter(micro_run) -> Segmenter:
    return Segmenter.from_pretrained(str(micro_run[0]))


@pytest.fixture(scope="module")
def generator(segmenter) -> Generator:
    return Generator(segmenter.networks, segmenter.sampler)


def encode(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def test_files_bytes_and_tensors_are_read(tmp_path, monkeypatch):
    content = encode(Image.fromarray(COLOURS))
    (tmp_path / "x.png").write_bytes(content)
    monkeypatch.setenv("HOME", str(tmp_path))
    floats = torch.tensor(COLOURS / 255, requires_grad=True)
    at_end = io.BytesIO()
    Image.fromarray(COLOURS).save(at_end, "PNG")  # leaves the position at the end
    with (tmp_path / "x.png").open("rb") as opened:
        images = [
            at_end,
            at_end,
            content,
            bytearray(content),
            memoryview(content),
            io.BytesIO(content),
            opened,
            "~/x.png",
        ]
        images += [
            tmp_path / "x.png",
            torch.tensor(COLOURS),
            floats,
            floats.float(),
            COLOURS[..., ::-1][..., ::-1],
        ]
        for image in images:
            np.testing.assert_array_equal(to_rgb(image), COLOURS)
    np.testing.assert_allclose(to_rgb(floats.bfloat16()), COLOURS, atol=1)


def test_images_of_every_mode_are_read():
    image = Image.fromarray(COLOURS)
    for mode in ("1", "L", "P", "CMYK", "YCbCr"):
        other = image.convert(mode)
        np.testing.assert_array_equal(to_rgb(other), np.asarray(other.convert("RGB")))
    sixteen = Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257)
    np.testing.assert_array_equal(to_rgb(sixteen), np.repeat(COLOURS[..., :1], 3, -1))
    clear = Image.fromarray(np.dstack([COLOURS, np.zeros((6, 9), np.uint8)]))
    assert (to_rgb(clear) == 255).all()
    others = [Image.fromarray(255 - COLOURS)]
    animated = encode(image, "WEBP", lossless=True, save_all=True, append_images=others)
    np.testing.assert_array_equal(to_rgb(animated), COLOURS)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            None,
            "images=None is not an image; give a path, bytes, an open file, a Pillow image, or an array",
        ),
        (3, "images=3 is not an image"),
        ({"image": COLOURS}, "is not an image; give a path"),
        (object(), "is not an image; give a path"),
        (
            "https://example.org/x.png",
            "images=https://example.org/x.png: URLs are not read; download the file",
        ),
        (pathlib.Path("https://example.org/x.png"), "URLs are not read; download the file"),
        ("data:image/png;base64,AAAA", "URLs are not read"),
        ("no.png", "images=no.png: there is no such file"),
        (b"no image", "images: it is not an image"),
        (io.BytesIO(), "images: the file is empty"),
        (io.StringIO("x"), "open it with mode 'rb'"),
        (np.zeros((3, 4, 5, 6)), "is not an image; for several images, give a list"),
        (np.zeros((3, 20, 30), np.uint8), "is not an image; channels are the last axis"),
        (np.zeros((0, 4, 3), np.uint8), "has no pixels"),
        (Image.new("RGB", (0, 4)), "has no pixels"),
        (np.full((4, 4, 3), np.nan), "NaN or infinite"),
        (np.full((4, 4, 3), 7.0), "an array of floats from 7 to 7; give floats in [0, 1], or uint8"),
        (np.zeros((4, 4, 3), np.int64), "an array of int64 is not read; give uint8, or floats in [0, 1]"),
        (np.zeros((4, 4, 3), complex), "an array of complex128 is not read"),
        ([COLOURS, None], "images[1]=None is not an image"),
        ([COLOURS, "no.png"], "images[1]=no.png: there is no such file"),
        ([[0, 1], [1, 0]], "images[0]: an array of shape (2,) is not an image"),
        ([], "images: the list is empty"),
        (iter([COLOURS]), "is not an image"),
    ],
)
def test_a_wrong_image_gives_one_line(segmenter, image, message):
    with pytest.raises(UserError) as caught:
        segmenter(image, "a star")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("phrases", "options", "message"),
    [
        (None, {}, "phrases=None is not a text; give a text such as 'the red star', or a list of texts"),
        (3, {}, "phrases=3 is not a text"),
        (b"star", {}, "phrases=b'star' is not a text"),
        ([["a", "b"]], {}, "phrases[0]=['a', 'b'] is not a text"),
        (["a star", 3], {}, "phrases[1]=3 is not a text"),
        ("", {}, "phrases='' is empty"),
        (["a star", " "], {}, "phrases[1]=' ' is empty"),
        ([], {}, "phrases: there is none"),
        ("a star", {"noises": 1.5}, "noises=1.5 must be a whole number from 1 to 64"),
        ("a star", {"noises": "2"}, "noises='2' must be a whole number"),
        ("a star", {"noises": 65}, "noises=65 must be a whole number from 1 to 64"),
        ("a star", {"noises": 0}, "noises=0 must be"),
        ("a star", {"noises": True}, "noises=True must be"),
        ("a star", {"indices": [-1]}, "indices=-1 must be a whole number from 0 to 4294967295"),
        ("a star", {"indices": [0, 1]}, "indices: 2 for 1 images; give one for each"),
    ],
)
def test_wrong_phrases_and_numbers_are_named(segmenter, phrases, options, message):
    with pytest.raises(UserError) as caught:
        segmenter(COLOURS, phrases, **options)
    assert message in str(caught.value)


def test_texts_of_numpy_become_texts():
    for value in (np.array("a star"), np.str_("a star"), np.array(["a star"]), [np.str_("a star")]):
        (text,) = read_texts("phrases", value, "the red star")
        assert type(text) is str
        assert text == "a star"
    with pytest.raises(UserError, match=r"^phrases\[0\]=' ' is empty"):
        read_texts("phrases", [np.str_(" ")], "the red star")


@pytest.mark.parametrize(
    ("texts", "unknown", "message"),
    [
        (["the dog"], [["dog"]], "on the word 'dog'; the result for 'the dog' is unreliable"),
        (["a", "b c d"], [[], ["b", "c", "d"]], "on the words 'b', 'c' and 'd'; the result for 'b c d'"),
        (["a", "b", "c"], [["a"], ["b"], []], "on the words 'a' and 'b'; the result for 2 of 3 texts"),
        ([np.str_("a")], [[np.str_("a")]], "on the word 'a'; the result for 'a' is unreliable"),
    ],
)
def test_unknown_words_are_named(texts, unknown, message):
    assert f"the model was not trained {message}" in describe_unknown_words(texts, unknown)


ERRORS = {
    "load(None)": "name=None is not a path",
    "load('')": "name='' is not a path",
    "load('nowhere')": "name=nowhere: there is no trained model; give the directory of a training run, or a",
    "load('.')": "name=.: there is no trained model",
    "load('https://x.org/m')": "name=https://x.org/m: URLs are not read; download it and give its directory",
    "load('http://x.org/m')": "launch/import_weights.py --from=hf:OWNER/NAME",
    "load('hf:owner/m')": "name=hf:owner/m: launch/import_weights.py --from=hf:OWNER/NAME imports public",
    "load('refershapes', seed=-1)": "seed=-1 must be a whole number from 0 to 4294967295",
    "load('refershapes', mesh='cpu')": "mesh='cpu' is not a jax.sharding.Mesh",
    "load('refershapes', mask_threshold=2)": "mask_threshold=2 must be between 0 and 1",
    "load('refershapes', mask_threshold='0.5')": "mask_threshold='0.5' must be a number",
    "load('refershapes', mask_samples=65)": "mask_samples=65 must be from 1 to 64",
    "load('refershapes', mask_steps=1.5)": "mask_steps=1.5 must be a whole number",
    "load('refershapes', step=7)": "refershapes: no checkpoint '7'",
    "draw(None)": "prompts=None is not a text; give a text such as 'a large red circle'",
    "draw([])": "prompts: there is none",
    "draw('a star', seed=-1)": "seed=-1 must be a whole number from 0 to 4294967295",
    "draw('a star', seed=0.5)": "seed=0.5 must be",
    "draw('a star', seed=2**32)": "seed=4294967296 must be",
    "draw('a star', steps=0)": "steps=0 must be a whole number from 1 on",
    "draw.steps('a star', steps='20')": "steps='20' must be",
    "draw.steps(['a star'])": "prompt=['a star'] is not a text; give one prompt",
    "draw.candidates('a star', 0)": "count=0 must be a whole number from 1 on",
    "draw.candidates('a star', 2, seed=2**32 - 1)": "seed + count - 1=4294967296 must be",
    "draw.candidates(['a star'])": "prompt=['a star'] is not a text; give one prompt",
    "draw('a star', guidance_scale='3')": "guidance_scale='3' must be a number",
    "draw('a star', guidance_scale=float('inf'))": "guidance_scale=inf must be finite",
}
"""Calls, and a part of their error messages."""
SCRIPT = """
import json, sys
from genmask_jax import Generator, Segmenter, UserError
load = Segmenter.from_pretrained
draw = Generator.from_pretrained("refershapes")
messages = []
for call in json.load(sys.stdin):
    try:
        messages.append(f"no error, but {eval(call)}")
    except UserError as error:
        messages.append(str(error))
print(json.dumps(messages))
"""


def test_wrong_models_settings_and_prompts_are_named():
    """In another process, because the type checks of the tests would raise first."""
    command = [sys.executable, "-c", SCRIPT]
    completed = subprocess.run(
        command, input=json.dumps(list(ERRORS)), capture_output=True, text=True, check=True
    )
    for (call, message), actual in zip(ERRORS.items(), json.loads(completed.stdout), strict=True):
        assert message in actual, call
        assert "--checkpoint" not in actual
        assert "config.sampler" not in actual


def test_a_home_directory_is_expanded_in_python(monkeypatch, micro_run, tmp_path, result):
    monkeypatch.setenv("HOME", str(micro_run[0].parent))
    assert load("~/micro")[2] == 4
    assert load_vae("~/micro")[0].stride == 4
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [path.parent for path in map(pathlib.Path, result.save("~/a/b"))] == [tmp_path / "a/b"] * 4


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "--checkpoint=https://x.org/m",
            "--checkpoint=https://x.org/m: URLs are not read; download the file",
        ),
        ("--image=https://x.org/a.png", "--image=https://x.org/a.png: URLs are not read"),
        ("--config.vae=http://x.org/m", "--config.vae=http://x.org/m: URLs are not read"),
        ("--out https://x.org/m", "--out=https://x.org/m: URLs are not read"),
    ],
)
def test_a_url_is_rejected_in_every_flag(argument, message):
    with pytest.raises(UserError) as caught:
        cli._need_no_urls(argument.split(" "))
    assert message in str(caught.value)


def test_urls_in_texts_and_of_buckets_and_hubs_are_allowed():
    cli._need_no_urls(["--text=https://x.org", "--workdir=gs://bucket/run", "--from=hf:owner/name"])


def test_scripts_name_the_flag(capsys):
    def fail(argument: str, complaint: str) -> None:
        raise ArgumentError(argument, complaint)

    for argument, flag in (("noises", "mask_samples"), ("seed", "seed"), ("name", "checkpoint")):
        with pytest.raises(SystemExit):
            cli.guard(lambda argument=argument: fail(argument, "=-1 must be another"))
        assert f"error: --{flag}=-1 must be another" in capsys.readouterr().err
    with pytest.raises(UserError, match="--out=https://x: URLs are not read"):
        make_directory("https://x", "--out")


@pytest.fixture
def result() -> Segmentation:
    masks = np.zeros((2, 30, 50), bool)
    masks[0, 10:20, 5:9] = True
    probabilities = np.where(masks, 0.75, 0.1).astype(np.float32)
    photo = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    scores, unknown = np.float32([0.75, 0]), ((), ("dog",))
    return Segmentation(photo, ("a star", "a dog"), masks, probabilities, scores, None, 0.5, unknown)


def test_a_result_is_a_sequence_of_its_phrases(result):
    assert len(result) == 2
    assert result[:1].phrases == ("a star",)
    assert result[::-1].phrases == ("a dog", "a star")
    assert result[::-1].unknown_words == (("dog",), ())
    assert result[-1:].masks.shape == (1, 30, 50)
    assert result[np.int64(-1)].phrases == ("a dog",)
    for number in (2, -3):
        with pytest.raises(IndexError, match=r"the result has 2 phrases"):
            result[number]
    assert [part.phrases for part in result] == [("a star",), ("a dog",)]
    np.testing.assert_array_equal(result[-1].masks, result.masks[1:])
    assert result[1].unknown_words == (("dog",),)
    assert result[0].areas.tolist() == [40]
    with pytest.raises(IndexError):
        result[2]


def test_a_result_is_copied_and_pickled(result):
    assert result.areas.tolist() == [40, 0]  # cached before
    for other in (copy.copy(result), copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        np.testing.assert_array_equal(other.masks, result.masks)
        assert (other.phrases, other.unknown_words) == (result.phrases, result.unknown_words)
        assert other.to_dict() == result.to_dict()
    assert str(pickle.loads(pickle.dumps(ArgumentError("seed", "=-1 is wrong")))) == "seed=-1 is wrong"


def test_nothing_found_and_unknown_words_are_reported(result):
    assert result.found.tolist() == [True, False]
    assert repr(result) == "Segmentation of 50 x 30 px ('a star': 40 px, 'a dog': nothing found)"
    star, dog = result.to_dict()["phrases"]
    assert (star["found"], star["unknown_words"]) == (True, [])
    assert (dog["found"], dog["unknown_words"]) == (False, ["dog"])


def test_width_comes_before_height(result):
    """A mask that fills the image has the image's size as right and bottom."""
    full = Segmentation(
        result.image, ("all",), np.ones((1, 30, 50), bool), np.ones((1, 30, 50), np.float32),
        np.float32([1]), None, 0.5,
    )  # fmt: skip
    numbers = full.to_dict()
    assert (numbers["width"], numbers["height"]) == (50, 30)
    assert numbers["phrases"][0]["box"] == [0, 0, numbers["width"], numbers["height"]]
    assert full.to_rle()[0]["size"] == [30, 50]  # COCO's order


def test_files_go_to_directories_by_names_without_folders(result, tmp_path):
    assert len(result.save(tmp_path / "a" / "b", "mask")) == 2
    with pytest.raises(UserError, match=r"directory=.*x\.png is the name of a file; give"):
        result.save(str(tmp_path / "x.png"))
    with pytest.raises(UserError, match="name='a/b' must be a prefix of file names"):
        result.save(tmp_path, name="a/b")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"directory=.*file/in cannot be created"):
        result.save(tmp_path / "file" / "in")
    with pytest.raises(UserError, match="threshold=2 must be between 0 and 1"):
        result.at_threshold(2)


@pytest.mark.parametrize(
    ("height", "width", "count"), [(32, 32, 2), (32, 32, 30), (1500, 4000, 3), (40, 900, 9)]
)
def test_overlays_keep_the_images_size_and_legends_can_be_read(height, width, count):
    phrases = tuple(f"the phrase of number {i}" for i in range(count))
    probabilities = np.zeros((count, height, width), np.float32)
    probabilities[0, :9, :9] = 1
    image = np.zeros((height, width, 3), np.uint8)
    result = Segmentation(
        image, phrases, probabilities > 0.5, probabilities, np.ones(count, np.float32), None, 0.5
    )
    assert result.overlay().size == (width, height)
    legend = np.asarray(result.legend())
    assert legend.shape[1] >= width
    text_rows = np.flatnonzero((legend.max(-1) < 80).any(1))
    gaps = np.flatnonzero(np.diff(text_rows) > 1)
    first = text_rows[: gaps[0] + 1] if gaps.size else text_rows
    assert len(first) >= max(9, width // 100)  # the height of letters


def test_unknown_words_cause_a_warning(segmenter, generator):
    with pytest.warns(UnknownWordWarning, match=r"not trained on the words \"l'étoile\" and 'zebra'"):
        found = segmenter(COLOURS, ["the red star", "l'étoile zebra"])
    assert found.unknown_words == ((), ("l'étoile", "zebra"))
    with pytest.warns(UnknownWordWarning, match="红星"):
        generator("红星", steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segmenter(COLOURS, "The red star.")


def test_no_script_flag_is_named_in_python():
    """Errors of the library name its arguments."""
    folder = pathlib.Path(sys.modules["genmask_jax"].__file__).parent / "inference"
    assert not [path.name for path in folder.glob("*.py") if '"--text' in path.read_text()]
