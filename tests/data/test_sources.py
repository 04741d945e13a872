"""The joint mixture: nothing that is evaluated on is learned from, and weights are kept."""

import collections
import dataclasses

import numpy as np
import pytest
import raw_trees

from genmask_jax.config import DataConfig, JointConfig
from genmask_jax.data.pipeline import training_batches
from genmask_jax.data.sources import check, generate_source, held_out, scored_source, segment_source
from genmask_jax.utils.errors import UserError


@pytest.fixture
def config(benchmark_data):
    return DataConfig(name="refcoco_joint", generate="coco_captions", path=str(benchmark_data.out), size=32)


def images(source):
    """Numbers of the images that a source reads."""
    return {source.items[i][0]["image_id"].decode() for i in range(len(source))}


def test_no_image_of_a_val_or_test_split_of_the_family_is_learned_from(config):
    evaluated = {
        str(1000 + i)
        for i in range(40)
        if raw_trees.split_of(i, ("val",)) != "train" or raw_trees.split_of(i, ("val",), 5) != "train"
    }
    assert held_out(config) == evaluated
    joint = segment_source(config, "train")
    assert len(joint.parts) == 3
    everywhere = [images(part) for part in joint.parts]
    learned = {str(1000 + i) for i in range(40)} - evaluated
    assert everywhere == [learned] * 3
    assert 0 < len(learned) < 24
    captions = images(generate_source(config, "train"))
    assert captions
    assert not captions & evaluated
    google = dataclasses.replace(config, joint=JointConfig(refcoco_google=1.0))
    assert held_out(google) > evaluated


def test_other_data_sets_may_join_and_keep_their_images(config):
    config = dataclasses.replace(config, joint=JointConfig(grefcoco_unc=0.5, reasonseg=2.0, image_folder=1))
    joint = segment_source(config, "train")
    assert joint.weights == [1, 1, 1, 0.5, 2, 1]
    assert len(images(joint.parts[4])) == 12
    assert not images(joint.parts[3]) & held_out(config)
    assert len(joint) == sum(map(len, joint.parts))
    first, second, *_, last = joint.parts
    ids = [joint[i]["id"] for i in (0, len(first), len(joint) - 1)]
    assert ids == [first[0]["id"], second[0]["id"], last[len(last) - 1]["id"]]
    with pytest.raises(IndexError):
        joint[len(joint)]


class KeepText:
    """A preparer that tells which expression it was given."""

    limit = "300 bytes"

    def truncate(self, text):
        return text

    def __call__(self, text, image=None):
        return {"text": np.frombuffer(text.encode().ljust(300), np.uint8)}


def test_batches_keep_the_weights_and_are_the_same_on_any_number_of_hosts(config):
    config = dataclasses.replace(config, joint=JointConfig(refcoco_unc=2.0, refcocoplus_unc=0, reasonseg=1.0))
    options = {"batch_size": 16, "condition_dropout": 0.0, "seed": 3}
    whole = training_batches(config, KeepText(), part=(0, 1), **options)
    halves = [training_batches(config, KeepText(), part=(i, 2), **options) for i in range(2)]
    reasoning = {segment_source(config, "train").parts[2].text(i) for i in range(18)}
    seen = collections.Counter()
    for _ in range(20):
        batch, parts = next(whole), [next(half) for half in halves]
        for task in ("segment", "generate"):
            together = np.concatenate([part[task]["images"] for part in parts])
            assert (together == batch[task]["images"]).all()
        for row in batch["segment"]["instruction"]["text"]:
            seen[row.tobytes().decode().strip() in reasoning] += 1
    assert seen[True] / seen.total() == pytest.approx(0.25, abs=0.02)


def test_masks_to_learn_are_as_large_as_images_and_masks_to_score_as_they_were(config):
    learned, scored = segment_source(config, "train")[0], scored_source(config, "val")[0]
    assert learned["image"].shape == (32, 32, 3)
    assert learned["mask"].shape == (32, 32)
    assert set(np.unique(learned["mask"])) <= {0, 1}
    assert scored["image"].shape == (32, 32, 3)
    assert scored["mask"].shape in raw_trees.SIZES
    assert scored["mask"].shape == scored["other_mask"].shape == scored["objects_mask"].shape
    # What is ignored is background to learn.
    reasoning = dataclasses.replace(config, name="reasonseg")
    whole, small = scored_source(reasoning, "train"), segment_source(reasoning, "train")
    as_scored = {example["id"]: example["mask"] for example in (whole[i] for i in range(len(whole)))}
    assert any((mask == 255).any() for mask in as_scored.values())
    for example in (small[i] for i in range(len(small))):
        share = (as_scored[example["id"]] == 1).mean()
        assert example["mask"].mean() == pytest.approx(share, abs=0.03)


def test_what_is_missing_is_said_before_training(config, tmp_path):
    check(config)
    with pytest.raises(UserError, match=r"has no prepared dataset.*prepare_data\.py"):
        check(dataclasses.replace(config, path=str(tmp_path)))
    with pytest.raises(UserError, match="several datasets"):
        check(dataclasses.replace(config, name="refcoco"))
    with pytest.raises(UserError, match="no split 'testA'; splits: "):
        segment_source(dataclasses.replace(config, name="reasonseg"), "testA")
    with pytest.raises(UserError, match="'reasonseg' has no prompts"):
        generate_source(dataclasses.replace(config, name="reasonseg", generate=""), "train")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"name": "coco"}, "config.data.name: 'coco' has no masks"),
        ({"name": "coco_captions"}, "config.data.name: 'coco_captions' has no masks"),
        ({"name": "refershapes", "generate": "grefcoco"}, "config.data.generate: 'grefcoco' has no prompts"),
        ({"name": "refcoco_joint", "path": ""}, "config.data.path is empty"),
        ({"name": "stamps"}, "config.data.path is empty"),
    ],
)
def test_mistakes_are_named(fields, complaint):
    with pytest.raises(UserError, match=complaint):
        check(DataConfig(**fields))


def test_masks_of_a_dataset_without_captions_need_another_to_generate_from(config):
    with pytest.raises(UserError, match="'refcoco_joint' has no prompts"):
        check(dataclasses.replace(config, generate=""))
