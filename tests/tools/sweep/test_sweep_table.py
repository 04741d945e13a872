"""The statistics, table and figure of a sweep, and its command line."""

import argparse
import json
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from scipy import stats

from genmask_jax.commands import sweep
from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.config.checks import from_config_dict
from genmask_jax.tools.sweep.figure import draw
from genmask_jax.tools.sweep.statistics import paired_difference
from genmask_jax.tools.sweep.table import make_rows, to_markdown
from genmask_jax.utils.config_files import folder, load_config
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import to_config_dict, to_json

ABLATIONS = sorted(path.stem for path in (folder() / "ablations").glob("*.py"))
CONFIG = SweepConfig("noise", "genmask_tiny", {"b": VariantConfig(), "a": VariantConfig()}, "a")


def line(variant: str, seed: int, **scores: float | None) -> dict:
    run = {"command": "python launch/sweep.py", "version": "1", "processor": "A", "cores": 2}
    seconds = {"train": 100.0, "evaluate": 20.0}
    return {"variant": variant, "seed": seed, "scores": scores, "seconds": seconds, **run}


LINES = [
    *(line("a", seed, mIoU=0.5 + seed / 10, oIoU=0.5) for seed in range(3)),
    *(line("b", seed, mIoU=0.6 + seed / 5, oIoU=None) for seed in range(3)),
]


def test_the_interval_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    for count in (2, 3, 8):
        one, other = rng.normal(size=(2, count))
        found = paired_difference(dict(enumerate(one)), dict(enumerate(other)))
        low, high = stats.ttest_rel(one, other).confidence_interval(0.95)
        assert found is not None
        assert found.mean - found.margin == pytest.approx(low)
        assert found.mean + found.margin == pytest.approx(high)


def test_differences_are_of_the_seeds_that_both_have():
    found = paired_difference({0: 1.0, 2: 3.0, 5: 9.0}, {5: 8.0, 1: 7.0})
    assert found is not None
    assert (found.mean, found.count) == (1.0, 1)
    assert math.isnan(found.margin)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_the_table_compares_with_the_reference():
    header, rows = make_rows(CONFIG, LINES)
    assert header == ["variant", "seeds", "mIoU", "difference", "oIoU", "difference"]
    assert rows == [
        ["a", "3", "0.600 (0.500 to 0.700)", "reference", "0.500 (0.500 to 0.500)", "reference"],
        ["b", "3", "0.800 (0.600 to 1.000)", "+0.200 ± 0.248", "", ""],
    ]
    text = to_markdown(CONFIG, LINES, "runs/x")
    assert "| b | 3 | 0.800 (0.600 to 1.000) | +0.200 ± 0.248 |  |  |" in text
    assert text.startswith("    python launch/sweep.py --workdir=runs/x\n\n| variant ")
    assert "2.0 min per run" in text


def test_one_seed_has_no_interval():
    _, rows = make_rows(CONFIG, [LINES[0], LINES[3]])
    assert rows[1][:4] == ["b", "1", "0.600", "+0.100"]


def test_the_figure_has_a_mark_for_each_seed_and_difference():
    root = ET.fromstring(draw(CONFIG, LINES))
    circles = [node.get("class") for node in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert circles.count("seed") == 9
    assert circles.count("difference") == 1
    assert draw(CONFIG, []) == ""


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_sweep_is_valid(name):
    config = from_config_dict(SweepConfig, load_config(f"ablations/{name}"))
    assert config.name == name
    assert len(config.seeds) >= 3
    assert from_config_dict(SweepConfig, json.loads(to_json(config))) == config
    sweep.check_runs(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "c"}, "config.reference: 'c' is not a variant; variants: a, b"),
        ({"seeds": (1, 1)}, "has a seed twice"),
        ({"seeds": (-1,)}, "config.seeds must not be negative"),
        ({"metrics": ()}, "config.metrics is empty"),
        ({"train": {"seed": 1}}, "config.train: a sweep sets the seed itself"),
        ({"variants": {"a": VariantConfig(evaluate={"step": 1})}}, "variants.a.evaluate: 'step' is not"),
        ({"variants": {"a": VariantConfig(), "b/c": VariantConfig()}}, "'b/c' must consist of letters"),
        ({"train": {"data.templates": ["{}"]}}, r"config.train.data.templates must be text, a number"),
    ],
)
def test_mistakes_in_a_sweep_are_named(changes, message):
    config = SweepConfig(**{**vars(CONFIG), **changes})
    with pytest.raises(UserError) as error:
        from_config_dict(SweepConfig, to_config_dict(config))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--base.loop.num_stpes=3", "config.variants.bimodal_0.05: --config.loop.num_stpes: no such field"),
        ("--base.optimizer.b1=2", "config.variants.bimodal_0.05: config.optimizer.b1 must be in [0, 1)"),
        ("--evaluate.mask_steps=2", "config.variants.logit_normal: mask_steps=2: masks were trained with"),
        ("--evaluate.mask_threshold=2", "mask_threshold=2 must be between 0 and 1"),
    ],
)
def test_every_variant_is_checked_before_the_first_training(override, message):
    config = sweep.read_sweep("ablations/mask_timesteps", [override], None)
    with pytest.raises(UserError) as error:
        sweep.check_runs(config)
    assert message in str(error.value)


def test_the_command_line_changes_all_variants():
    overrides = ["--base.optimizer.learning_rate=1e-3", "--base.data.generate=none", "--evaluate.count=8"]
    config = sweep.read_sweep("ablations/passes", overrides, "3,4")
    assert (config.train["optimizer.learning_rate"], config.train["data.generate"]) == (1e-3, "none")
    assert (config.evaluate["count"], config.seeds) == (8, (3, 4))


def make_arguments(tmp_path, **flags) -> argparse.Namespace:
    values = {"config": "ablations/passes", "workdir": str(tmp_path / "out"), "seeds": None, "variants": None}
    return argparse.Namespace(**values | {"processes": 1, "job": "0/1", "only_report": False} | flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"config": "genmask_tiny"},
            "--config=genmask_tiny is a config for launch/train.py, not for launch/s",
        ),
        ({"job": "2/2"}, "--job=2/2: give I/N with 0 <= I < N"),
        ({"seeds": "0;1"}, "--seeds=0;1: give whole numbers"),
        ({"variants": "3_passes"}, "--variants: '3_passes' is not one of 1_pass, 2_passes"),
        ({"processes": 0}, "--processes=0 must be positive"),
        ({"only_report": True}, "results.jsonl: there is no such file"),
    ],
)
def test_mistakes_on_the_command_line_are_named(tmp_path, flags, message):
    with pytest.raises(UserError) as error:
        sweep.run(make_arguments(tmp_path, **flags), [])
    assert message in str(error.value)


def test_table_and_figure_are_drawn_again(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    lines = [line(name, seed, mIoU=0.5) for name in ("1_pass", "2_passes") for seed in range(3)]
    (tmp_path / "out/results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    sweep.run(make_arguments(tmp_path, only_report=True), [])
    printed = capsys.readouterr().out
    assert "0.500 (0.500 to 0.500)" in printed
    assert "config.metrics: no run has 'oIoU'" in printed
    assert (tmp_path / "out/table.md").read_text().startswith("# passes\n\n    python launch/sweep.py")
    assert (tmp_path / "out/figure.svg").read_text().startswith("<svg")
