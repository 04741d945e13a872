"""Batches of varied examples: the same for any workers and hosts, and after a resume; masks alone."""

import itertools

import jax
import numpy as np
import pytest
from absl import flags
from etils import epath
from PIL import Image
from test_pipeline import CHARACTERS

from genmask_jax.config import AugmentConfig, DataConfig, TrainConfig
from genmask_jax.config.checks import from_config_dict
from genmask_jax.data import pipeline, sources
from genmask_jax.data.prepared.prepare import prepare
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import to_config_dict

AUGMENT = AugmentConfig(crop=0.3, flip=0.5, jitter=0.2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """Images of 60 x 40 with the classes sky, earth and, in some, a well; two blue ones show no class."""
    raw, out = (tmp_path_factory.mktemp(name) for name in ("raw", "out"))
    (raw / "classes.txt").write_text("sky\nearth\nwell\nbackground\n")
    for i in range(12):
        rng = np.random.default_rng(i)
        labels = np.repeat(np.arange(60)[:, None] > rng.integers(20, 40), 40, axis=1).astype(np.uint8)
        if i % 3 == 0:
            labels[50:55, 10:20] = 2
        image = rng.integers(0, 40, (60, 40, 3)) + 80 * labels[..., None]
        Image.fromarray(image.astype(np.uint8)).save(raw / f"{i}.png")
        Image.fromarray(labels).save(raw / f"{i}_label.png")
    for name in ("x", "y"):
        blue = np.random.default_rng(0).integers(100, 200, (60, 40, 1)) * [0, 0, 1]
        Image.fromarray(blue.astype(np.uint8)).save(raw / f"{name}.png")
        Image.fromarray(np.full((60, 40), 3, np.uint8)).save(raw / f"{name}_label.png")
    prepare("image_folder", epath.Path(raw), epath.Path(out), num_workers=1)
    return str(out)


def config(data, **options) -> DataConfig:
    options = {"generate": "none", "augment": AUGMENT, "absent_share": 0.3, "size": 32, **options}
    return DataConfig(name="image_folder", path=data, **options)


def batches(data, size=8, part=(0, 1), seed=3, **options):
    return pipeline.training_batches(
        config(data, **options), CHARACTERS, batch_size=size, part=part, condition_dropout=0.1, seed=seed
    )


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def said(batch, half="segment"):
    return ["".join(map(chr, row)).strip() for row in batch[half]["instruction"]["input_ids"]]


def test_masks_alone_fill_the_batch(data):
    batch = next(batches(data))
    assert set(batch) == {"segment"}
    assert batch["segment"]["images"].shape == (8, 32, 32, 3)
    assert set(np.unique(batch["segment"]["masks"])) <= {0, 1}


@pytest.mark.parametrize("generate", ["none", "classes"])
def test_workers_hosts_and_a_resume_change_no_example(data, generate):
    flags.FLAGS.mark_as_parsed()
    alone = batches(data, generate=generate)
    parts = [batches(data, generate=generate, part=(host, 2)) for host in range(2)]
    there = batches(data, generate=generate, num_workers=2)
    try:
        for step in range(3):
            one = next(alone)
            same(one, jax.tree.map(lambda *rows: np.concatenate(rows), *map(next, parts)))
            same(one, next(there))
            if step == 0:
                position = alone.get_state()
    finally:
        there.close()
    again = batches(data, generate=generate)
    again.set_state(position)
    next(again)
    same(next(again), one)
    assert not np.array_equal(
        next(batches(data, seed=4))["segment"]["images"], next(batches(data))["segment"]["images"]
    )


def test_an_example_is_varied_anew_in_every_epoch_and_absent_classes_are_empty(data):
    seen, empty = set(), 0
    iterator = batches(data)
    for _ in range(20):
        batch = next(iterator)
        for image, mask, text in zip(
            batch["segment"]["images"], batch["segment"]["masks"], said(batch), strict=True
        ):
            seen.add(image.tobytes())
            empty += text == "well" and not mask.any()
    assert len(seen) == 160
    assert 10 <= empty <= 60


def test_images_that_show_no_class_are_negatives_if_any_are_asked_for(data):
    def blue(**options):
        for batch in itertools.islice(batches(data, augment=AugmentConfig(), **options), 20):
            rows = zip(batch["segment"]["images"], batch["segment"]["masks"], said(batch), strict=True)
            yield from ((mask.any(), text) for image, mask, text in rows if not image[..., :2].any())

    assert set(blue()) == {(False, "sky"), (False, "earth"), (False, "well")}
    assert not list(blue(absent_share=0.0))


def test_prompts_list_the_classes_and_images_stay_whole(data):
    batch = next(batches(data, generate="classes", augment=AugmentConfig(), absent_share=0.0, size=16))
    assert set(batch) == {"segment", "generate"}
    known = {"a photograph with sky and earth", "a photograph with sky, earth and well", ""}
    assert set(said(batch, "generate")) <= known


def test_classes_are_asked_for_by_the_first_template_where_they_are_scored(data):
    asked = config(data, templates=("the {}", "all {}"))
    example = sources.scored_source(asked, "val")[0]
    assert example["text"] == f"the {example['group']}"
    assert sources.label_maps(asked, "val").phrases == ["the sky", "the earth", "the well"]
    assert {"the well", "all well"} <= set(sources.texts(asked))
    own = sources.texts_of_split(asked)
    assert [(what, len(some)) for what, some in own.items()] == [
        ("masks", len(sources.segment_source(asked, "train")))
    ]
    assert len(sources.texts(asked)) == len(own["masks"]) + 2 * 3  # templates and classes


def test_varied_or_not_a_thin_object_has_the_same_mask(tmp_path):
    """For the model, the VAE and a cache of latents, which encodes what is not varied."""
    image, pole = np.zeros((240, 320, 3), np.uint8), np.zeros((240, 320), np.uint8)
    pole[20:200, 101:103] = 255  # a fifth of a pixel at 32 px
    Image.fromarray(image).save(tmp_path / "x.png")
    Image.fromarray(pole).save(tmp_path / "x_mask.png")
    (tmp_path / "phrases.txt").write_text("the pole\n")
    for i in (1, 2):  # so that there is a val split
        Image.fromarray(image + i).save(tmp_path / f"x{i}.png")
        Image.fromarray(pole).save(tmp_path / f"x{i}_mask.png")
    prepare("image_folder", epath.Path(tmp_path), epath.Path(tmp_path / "out"), num_workers=1)
    found = []
    for augment in (AugmentConfig(), AugmentConfig(jitter=0.1)):
        one = config(str(tmp_path / "out"), augment=augment, absent_share=0.0)
        found += [sources.segment_source(one, "train")[0]["mask"]]
        for batch in (
            next(batches(one.path, augment=augment, absent_share=0.0))["segment"],
            next(pipeline.image_batches(one, batch_size=4, part=(0, 1), seed=0)),
        ):
            found += [*batch["masks"]]
    assert found[0].sum() == 24  # rows 3 to 26; it covers a third of row 2
    for mask in found:
        np.testing.assert_array_equal(mask, found[0])


def test_a_folder_without_captions_names_both_ways_out(data):
    with pytest.raises(UserError, match=r"has no usable captions; .*generate=\"none\" trains on masks alone"):
        sources.check(config(data, generate=""))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"templates": ("the thing",)}, r"data\.templates: .* one \{\}"),
        ({"augment": {"crop": 0.0}}, r"data\.augment\.crop"),
        ({"latents": "cache"}, "data.latents: they cannot be augmented"),
    ],
)
def test_bad_fields_are_one_line(data, micro_vae, fields, says):
    import conftest

    values = to_config_dict(conftest.micro_config(micro_vae)).to_dict()
    values["data"] |= {"absent_share": 0.1} | fields
    if "augment" in fields:
        values["data"]["augment"] = {"crop": 0.0, "flip": 0.0, "jitter": 0.0}
    with pytest.raises(UserError, match=says):
        from_config_dict(TrainConfig, values)
