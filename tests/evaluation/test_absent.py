"""Scores of absent objects, and the no-target rule that is chosen on val."""

import types

import numpy as np
import pytest

from genmask_jax.config import SamplerConfig
from genmask_jax.data.refershapes.source import ReferShapesSegment
from genmask_jax.evaluation.no_target import choose_no_target, masks_from_examples, need_val_scenes
from genmask_jax.evaluation.report import _absent_table
from genmask_jax.evaluation.segmentation import evaluate_segmentation
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.sharding import one_device
from genmask_jax.utils.errors import UserError

SIZE, COUNT = 32, 7


class FakeSampler(MaskSampler):
    """Predicts 0.95 for present objects, 0.72 for absent objects, and 0.1 for absent stars."""

    def __init__(self, source, **rule):
        self.networks, self.batch_size = types.SimpleNamespace(mesh=one_device(), size=source.size), 4
        self.sampler = SamplerConfig(**rule)
        self.absent = {source[i]["absent_text"] for i in range(COUNT)}
        self.calls = set()

    def __call__(self, images, texts, indices):
        self.calls.add((len(images), len(texts), len(indices)))
        levels = [0.95 if text not in self.absent else 0.1 if "star" in text else 0.72 for text in texts]
        return np.ones((len(images), SIZE, SIZE), np.float32) * np.float32(levels)[:, None, None]


@pytest.fixture(scope="module")
def source():
    return ReferShapesSegment("val", SIZE)


def evaluate(source, **rule):
    return evaluate_segmentation(FakeSampler(source, **rule), source, COUNT, swapped=True, absent=True)


def test_empty_masks_report_absent_objects(source):
    examples = [source[i] for i in range(COUNT)]
    is_star = ["star" in example["absent_text"] for example in examples]
    assert 0 < sum(is_star) < COUNT
    result = evaluate(source)
    metrics = result.metrics["absent"]
    assert (metrics["count"], metrics["absent_reported"]) == (COUNT, pytest.approx(np.mean(is_star)))
    assert sum(group["count"] for group in metrics["groups"].values()) == COUNT
    assert metrics["present_found"] == 1.0
    filtered = evaluate(source, no_target_score=0.9).metrics["absent"]
    assert filtered["absent_reported"] == 1.0


def test_absent_objects_do_not_change_other_scores(source):
    with_absent, without_absent = (
        evaluate_segmentation(FakeSampler(source), source, COUNT, swapped=True, absent=absent).metrics
        for absent in (True, False)
    )
    assert "absent" not in without_absent
    for metrics in (with_absent, without_absent):
        metrics.pop("seconds_per_image")
    assert with_absent == without_absent | {"absent": with_absent["absent"]}


def test_the_rule_with_the_best_giou_is_chosen(source):
    best, *_, worst = choose_no_target(masks_from_examples(evaluate(source).examples))
    assert (best["no_target_area"], best["no_target_score"]) == (0.0, 0.75)
    assert best["N-acc"] == 1.0
    for choice in (best, worst):
        rule = {name: choice[name] for name in ("no_target_area", "no_target_score")}
        metrics = evaluate(source, **rule).metrics
        assert choice["N-acc"] == metrics["absent"]["absent_reported"]
        assert choice["T-acc"] == metrics["absent"]["present_found"]
        assert choice["gIoU"] == pytest.approx((metrics["mIoU"] + metrics["absent"]["absent_reported"]) / 2)


def test_the_rule_is_never_chosen_on_test():
    need_val_scenes("refershapes", "val", SamplerConfig())
    for data, split in (("refershapes", "test"), ("refershapes", "hand_drawn"), ("stamps", "val")):
        with pytest.raises(
            UserError, match=f"choose on --split=val of refershapes, not on {split} of {data}"
        ):
            need_val_scenes(data, split, SamplerConfig())
    with pytest.raises(UserError, match="--no_target_area=0 --no_target_score=0"):
        need_val_scenes("refershapes", "val", SamplerConfig(no_target_score=0.9))


def test_the_table_names_the_rule(source):
    rule = {"no_target_area": 0.001, "no_target_score": 0.9}
    table = _absent_table(evaluate(source, **rule).metrics["absent"], vars(SamplerConfig(**rule)))
    assert table.title == "absent objects\n(no_target_area 0.001, no_target_score 0.9)"
    names, _, shares = (list(column.cells) for column in table.columns)
    assert names[0] == "absent, reported as absent"
    assert names[-1] == "present, found"
    assert shares[0] == "100.0"
