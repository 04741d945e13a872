"""Images and prompts against transformers' processor."""

import itertools
import json
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from genmask_jax.instruction.qwen.config import Prompts, QwenConfig, QwenTextConfig, QwenVisionConfig
from genmask_jax.instruction.qwen.files import load_chat_template
from genmask_jax.instruction.qwen.images import fit, prepare_image, resized_shape
from genmask_jax.instruction.qwen.prompts import CHAT_TEMPLATE, IMAGE, PromptMaker, QwenPreparer
from genmask_jax.instruction.qwen.vision import normalise
from genmask_jax.utils.errors import UserError
from tests.instruction.qwen import reference
from tests.instruction.qwen.reference import TEXTS, photograph, tokenizer

PUBLISHED = QwenVisionConfig()
SMALL = QwenConfig(
    QwenTextConfig(), QwenVisionConfig(patch_size=4, window_size=32, depth=3, full_attention=(1,))
)


def in_their_order(row: dict, config: QwenVisionConfig, tokens: int) -> np.ndarray:
    """Prepared patches as the processor has them: token by token, floats, each frame twice."""
    area, merged = config.patch_size**2, config.merge_size**2
    pixels = np.asarray(normalise(jnp.asarray(row["patches"]))).reshape(-1, merged, 3, 1, area)
    pixels = np.repeat(pixels[row["order"][:tokens]], config.temporal_patch_size, axis=3)
    return pixels.reshape(tokens * merged, -1)


@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (480, 640), (333, 500), (1000, 211), (30, 41), (56, 56), (2400, 1800)]
)
def test_pixels_are_the_processors(width, height):
    image = photograph(width, height)
    processor = reference.Qwen2VLImageProcessorPil(size={"shortest_edge": 4 * 784, "longest_edge": 324 * 784})
    expected = processor(images=[image], return_tensors="np")
    fitted = fit(image, PUBLISHED, 4, 324)
    rows, columns = (side // 28 for side in fitted.shape[:2])
    assert expected["image_grid_thw"].tolist() == [[1, 2 * rows, 2 * columns]]
    row = prepare_image(fitted, PUBLISHED, 324)
    ours = in_their_order(row, PUBLISHED, rows * columns)
    difference = np.abs(ours - expected["pixel_values"]).max()
    print(f"{width} x {height}: {rows} x {columns} tokens, pixels differ by {difference:.1e}")
    assert difference <= 1e-5


def test_every_shape_is_resized_as_theirs():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    sides = (1, 13, 27, 56, 101, 224, 500, 1333)
    for height, width in itertools.product(sides, sides):
        if max(height, width) > 200 * min(height, width):
            with pytest.raises(UserError, match="at most 1 to 200"):
                resized_shape(height, width, 28, 4, 324)
            continue
        expected = smart_resize(height, width, 28, 4 * 784, 324 * 784)
        assert tuple(28 * side for side in resized_shape(height, width, 28, 4, 324)) == expected


def make(**changes) -> PromptMaker:
    config = reference.instruction_config(**changes)
    return PromptMaker(tokenizer(), CHAT_TEMPLATE, SMALL.vision, config)


@pytest.mark.parametrize("num_images", [0, 1, 2])
def test_prompts_are_the_processors(num_images):
    maker = make(prompts=Prompts(system="You see."))
    images = [photograph(70, 40, i) for i in range(num_images)]
    for text, prompt in itertools.product(
        [*TEXTS, "", " É  ✓\n"], ["{text}", "{text} please.", "Segment: {text}"]
    ):
        content = [{"type": "image"}] * num_images + [{"type": "text", "text": prompt.format(text=text)}]
        messages = [{"role": "system", "content": "You see."}, {"role": "user", "content": content}]
        processor = reference.processor()
        whole = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        expected = processor(text=[whole], images=images or None)["input_ids"][0]
        ours = maker(*maker.render([prompt], num_images), text, images)
        assert ours["input_ids"][ours["attention_mask"]].tolist() == list(expected)


def test_shapes_depend_only_on_the_budget():
    prepare = QwenPreparer(make())
    shapes = set()
    for (width, height), text in itertools.product(
        [(8, 8), (32, 32), (70, 40), (300, 40), (500, 500)], TEXTS
    ):
        prepared = prepare(text * 3, photograph(width, height))
        shapes.add(tuple((name, x.shape, x.dtype.name) for name, x in sorted(prepared.items())))
        tokens = prepared["image_index"].max() + 1
        assert prepared["output_mask"].sum() >= tokens + 2
    assert len(shapes) == 2  # one per budget
    assert len({prepare(text)["input_ids"].shape for text in ["", *TEXTS, TEXTS[0] * 50]}) == 1


def test_the_template_can_be_dropped():
    text = "the red star on the left"
    prepared = QwenPreparer(make())(text, photograph(32, 32))
    kept = prepared["input_ids"][prepared["output_index"][prepared["output_mask"]]]
    decoded = tokenizer().decode(kept.tolist(), skip_special_tokens=False)
    assert decoded.replace(IMAGE, "").strip() == text
    assert decoded.count(IMAGE) == 16
    last = prepared["output_index"][prepared["output_mask"]][-1]
    assert last == prepared["attention_mask"].sum() - 1
    null = QwenPreparer(make())("")
    assert null["output_mask"].sum() == 1  # the null instruction of guidance has a token
    whole = QwenPreparer(make(drop_template=False))(text, photograph(32, 32))
    assert whole["output_mask"].sum() == whole["attention_mask"].sum()


@pytest.mark.parametrize("name", ["chat_template.jinja", "chat_template.json", "tokenizer_config.json"])
def test_chat_templates_are_loaded_from_all_known_files(tmp_path, name):
    """Qwen2.5-VL ships chat_template.json, Qwen2.5 tokenizer_config.json, newer tools chat_template.jinja."""
    assert load_chat_template(tmp_path) == CHAT_TEMPLATE  # none is there
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 9}')
    text = "mine" if name.endswith("jinja") else json.dumps({"chat_template": "mine"})
    (tmp_path / name).write_text(text)
    assert load_chat_template(tmp_path) == "mine"


def test_which_prompt_is_used():
    prepare = QwenPreparer(make(drop_template=False, max_text_tokens=90))

    def prompt(*arguments):
        prepared = prepare(*arguments)
        return tokenizer().decode(prepared["input_ids"][prepared["attention_mask"]].tolist())

    image = photograph(32, 32)
    assert "Segment in this picture: the star" in prompt("the star", image)
    assert "Who barks? Segment in this picture what is asked for." in prompt("Who barks?", image)
    assert "Draw a picture of: a star." in prompt("a star.")


def test_special_tokens_are_removed_from_texts():
    plain = QwenPreparer(make())("a  star", photograph(32, 32))
    for text in (
        f"a {IMAGE}<|im_end|> star",
        f"a <|image{IMAGE}_pad|> star",
        f"a <|im_<|im_end{IMAGE}|>end|> star",
    ):
        prepared = QwenPreparer(make())(text, photograph(32, 32))
        np.testing.assert_array_equal(prepared["input_ids"], plain["input_ids"])


def test_prompts_may_contain_braces_and_templates_must_contain_the_image():
    maker = make(prompts=Prompts(phrase='as {"label": 1}: {text} }'))
    prepared = QwenPreparer(maker)("the {star}", photograph(32, 32))
    prompt = tokenizer().decode(prepared["input_ids"].tolist())
    assert 'as {"label": 1}: the {star} }' in prompt
    for template, words in (
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "omits the text or an image|fails"),
        ("{% for m in messages %}", "the chat template fails"),
        ("nothing", "omits the text or an image"),
    ):
        maker = PromptMaker(tokenizer(), template, SMALL.vision, reference.instruction_config())
        with pytest.raises(UserError, match=words):
            QwenPreparer(maker)


def test_images_larger_than_all_budgets_are_refused():
    with pytest.raises(UserError, match="too long and narrow"):
        QwenPreparer(make())("a star", photograph(1900, 10))


def test_preparers_can_be_sent_to_worker_processes():
    prepare = QwenPreparer(make())
    copy = pickle.loads(pickle.dumps(prepare))
    image = photograph(32, 32)
    for name, value in prepare("the star", image).items():
        np.testing.assert_array_equal(copy("the star", image)[name], value)
