"""Training, evaluation and scoring with each dataset, as a user runs them."""

import dataclasses
import json
import pathlib

import pytest
from conftest import micro_config, start
from test_end_to_end import one_line_error, run_script

from genmask_jax.config import DataConfig
from genmask_jax.data.sources import learned_from
from genmask_jax.evaluation.benchmarks import evaluate_benchmark, parse_benchmarks, summarize_rows
from genmask_jax.evaluation.no_target import choose_no_target, masks_from_rows
from genmask_jax.evaluation.predictions import score_predictions
from genmask_jax.inference.load import load
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.utils.errors import UserError

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
SPLITS = {
    "refcoco_joint": "refcoco:unc:val",
    "grefcoco:unc": "val",
    "reasonseg": "test",
    "image_folder": "val",
}
SLOW_SPLITS = {
    "refcoco:unc": "testA",
    "refcoco:google": "test",
    "refcocoplus:unc": "testB",
    "refcocog:umd": "test",
    "refcocog:google": "val",
}
"""The joint mixture covers the same code, so these run only with `-m slow`."""


def train_on(data, micro_vae, out, workdir):
    """Trains on a dataset for two steps."""
    generate = "" if data == "image_folder" else "coco_captions"
    config = micro_config(micro_vae, num_steps=2)
    config = dataclasses.replace(
        config, data=DataConfig(name=data, generate=generate, path=str(out), size=32)
    )
    start(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def joint_run(micro_vae, benchmark_data, tmp_path_factory):
    """A run on the joint mixture."""
    return train_on("refcoco_joint", micro_vae, benchmark_data.out, tmp_path_factory.mktemp("joint") / "run")


def segmenter_of(workdir, batch_size=4, **sampler):
    networks, config, _ = load(workdir)
    sampler = dataclasses.replace(config.sampler, **sampler)
    return MaskSampler(networks, sampler, batch_size=batch_size)


@pytest.mark.parametrize(
    "data", [*SPLITS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_SPLITS)]
)
def test_a_dataset_is_trained_on_evaluated_and_scored(data, micro_vae, benchmark_data, tmp_path):
    workdir = train_on(data, micro_vae, benchmark_data.out, tmp_path / "run")
    split = (SPLITS | SLOW_SPLITS)[data]
    name = split if data == "refcoco_joint" else f"{data}:{split}"
    (benchmark,) = parse_benchmarks([name], benchmark_data.out)
    result = evaluate_benchmark(segmenter_of(workdir), benchmark, keep=2)
    assert result.metrics["count"] == len(result.rows) == len(benchmark.items())
    assert len(result.sheet) == 2
    assert any(row["prediction"] for row in result.rows)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in result.rows))
    rows = score_predictions(benchmark, path)
    assert summarize_rows(benchmark.protocol, rows) == result.metrics


def test_scores_do_not_depend_on_the_batch_size(joint_run, benchmark_data):
    (benchmark,) = parse_benchmarks(["refcocog:umd:val"], benchmark_data.out)
    results = [evaluate_benchmark(segmenter_of(joint_run, size), benchmark) for size in (3, 16)]
    assert len({json.dumps(result.metrics) for result in results}) == 1
    assert all([row["rle"] for row in r.rows] == [row["rle"] for row in results[0].rows] for r in results)


def test_a_no_target_rule_is_chosen_on_val_and_used(joint_run, benchmark_data):
    (benchmark,) = parse_benchmarks(["grefcoco:unc:val"], benchmark_data.out)
    plain = evaluate_benchmark(segmenter_of(joint_run), benchmark)
    choices = choose_no_target(masks_from_rows(plain.rows))
    gious = [choice["gIoU"] for choice in choices]
    assert gious == sorted(gious, reverse=True)
    assert min(gious) < max(gious)
    for choice in (choices[0], choices[-1], choices[len(choices) // 2]):
        rule = {name: choice.pop(name) for name in ("no_target_area", "no_target_score")}
        assert evaluate_benchmark(segmenter_of(joint_run, **rule), benchmark).metrics == choice


def test_the_scripts_score_a_checkpoint_on_many_benchmarks(joint_run, benchmark_data, tmp_path):
    names = ["reasonseg:val", "refcocog:umd:test", "grefcoco:unc:testB", "refcoco:unc:testA"]
    command = ("evaluate", f"--checkpoint={joint_run}", "--workdir=out", "--batch_size=8")
    completed = run_script(*command, f"--benchmark={','.join(names)}", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    record = json.loads((tmp_path / "out/metrics.json").read_text())
    assert set(record) == set(names)
    for word in ("RefCOCO", "testA", "GenMask, oIoU", "83.3", "ReasonSeg", "gRefCOCO", "N-acc"):
        assert word in completed.stdout
    for name, found in record.items():
        metrics, how = found["metrics"], found["how"]
        assert how["checkpoint_step"] == 2
        assert {"checkpoint", "resize", "seed", "sampler", "version", "data"} <= set(how)
        stem = name.replace(":", "_")
        assert (tmp_path / f"out/{stem}.png").exists()
        directory = f"{benchmark_data.out}/{name.rpartition(':')[0].replace(':', '/')}"
        scored = run_script(
            "score",
            f"--benchmark={directory}:{name.rpartition(':')[2]}",
            f"--predictions=out/{stem}.jsonl",
            cwd=tmp_path,
        )
        assert scored.returncode == 0, scored.stderr
        assert metrics.pop("images_learned_from") == 0
        assert json.loads(scored.stdout.splitlines()[-1]) == {"benchmark": name, **metrics}


def test_training_images_in_benchmarks_are_detected(benchmark_data):
    config = DataConfig(name="refcoco:unc", generate="coco_captions", path=str(benchmark_data.out))
    same, related, other = parse_benchmarks(
        ["refcoco:unc:val", "refcocog:umd:val", "reasonseg:val"], benchmark_data.out
    )
    captions = {f"coco:{1000 + i}" for i in range(30)}
    assert learned_from(config) & captions
    assert not learned_from(config) & same.images()
    assert not learned_from(dataclasses.replace(config, generate="")) & same.images()
    assert learned_from(config) & related.images()
    assert not learned_from(config) & other.images()
    joint = dataclasses.replace(config, name="refcoco_joint")
    assert learned_from(joint)
    assert not learned_from(joint) & (same.images() | related.images())


def test_evaluation_configs_and_mistakes(joint_run, benchmark_data, tmp_path):
    command = ("evaluate", f"--checkpoint={joint_run}", "--workdir=out")
    config = f"--config={CONFIGS}/evaluate_grefcoco.py"
    options = ("--config.benchmarks=('grefcoco:unc:val',)", "--choose_no_target")
    completed = run_script(*command, config, *options, cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert "--no_target_area=" in completed.stdout
    # Earlier benchmarks keep their metrics and settings.
    completed = run_script(*command, "--benchmark=reasonseg:val", "--no_target_area=0.01", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    record = json.loads((tmp_path / "out/metrics.json").read_text())
    areas = {name: entry["how"]["sampler"]["no_target_area"] for name, entry in record.items()}
    assert areas == {"grefcoco:unc:val": 0, "reasonseg:val": 0.01}
    on_test = run_script(*command, "--benchmark=grefcoco:unc:testA", "--choose_no_target", cwd=tmp_path)
    one_line_error(on_test, "--choose_no_target", "grefcoco:unc:testA")
    one_line_error(run_script(*command, "--benchmark=reasonseg:val", "--reason", cwd=tmp_path), "--reason")
    with pytest.raises(UserError, match=r"testC.*testA"):
        parse_benchmarks(["refcoco:unc:testC"], benchmark_data.out)
    with pytest.raises(UserError, match="--benchmark=refcoco"):
        parse_benchmarks(["refcoco"], benchmark_data.out)
