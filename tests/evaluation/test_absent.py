"""Absent objects as a score, and the rule for it, chosen on val."""

import types

import numpy as np
import pytest

from genmask_jax.config import SamplerConfig
from genmask_jax.data.refershapes.source import ReferShapesSegment
from genmask_jax.evaluation.no_target import choose_no_target, found_in_examples, need_val_scenes
from genmask_jax.evaluation.report import _absent
from genmask_jax.evaluation.segmentation import evaluate_segmentation
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.sharding import one_device
from genmask_jax.utils.errors import UserError

SIZE, COUNT = 32, 7


class Sure(MaskSampler):
    """Stands in for a sampler: sure of what is there, less sure of what is not, and wise about stars."""

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
    return evaluate_segmentation(Sure(source, **rule), source, COUNT, swapped=True, absent=True)


def test_empty_masks_report_absent_objects(source):
    examples = [source[i] for i in range(COUNT)]
    wise = ["star" in example["absent_text"] for example in examples]
    assert 0 < sum(wise) < COUNT
    result = evaluate(source)
    found = result.metrics["absent"]
    assert (found["count"], found["absent_reported"]) == (COUNT, pytest.approx(np.mean(wise)))
    assert sum(group["count"] for group in found["groups"].values()) == COUNT
    assert found["present_found"] == 1.0
    ruled = evaluate(source, no_target_score=0.9).metrics["absent"]
    assert ruled["absent_reported"] == 1.0


def test_asking_for_absent_objects_changes_no_other_score(source):
    asked, not_asked = (
        evaluate_segmentation(Sure(source), source, COUNT, swapped=True, absent=absent).metrics
        for absent in (True, False)
    )
    assert "absent" not in not_asked
    for metrics in (asked, not_asked):
        metrics.pop("seconds_per_image")
    assert asked == not_asked | {"absent": asked["absent"]}


def test_the_rule_is_chosen_by_its_giou_and_gives_it(source):
    best, *_, worst = choose_no_target(found_in_examples(evaluate(source).examples))
    assert (best["no_target_area"], best["no_target_score"]) == (0.0, 0.75)
    assert best["N-acc"] == 1.0
    for choice in (best, worst):
        rule = {name: choice[name] for name in ("no_target_area", "no_target_score")}
        found = evaluate(source, **rule).metrics
        assert choice["N-acc"] == found["absent"]["absent_reported"]
        assert choice["T-acc"] == found["absent"]["present_found"]
        assert choice["gIoU"] == pytest.approx((found["mIoU"] + found["absent"]["absent_reported"]) / 2)


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
    table = _absent(evaluate(source, **rule).metrics["absent"], vars(SamplerConfig(**rule)))
    assert table.title == "absent objects\n(no_target_area 0.001, no_target_score 0.9)"
    names, _, shares = (list(column.cells) for column in table.columns)
    assert names[0] == "absent, reported as absent"
    assert names[-1] == "present, found"
    assert shares[0] == "100.0"
