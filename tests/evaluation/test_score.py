"""launch/score.py: predictions are checked by id, and scores are compared with a reference."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from test_metrics import reference

from genmask_jax.data.prepared import records
from genmask_jax.evaluation.benchmarks import open_benchmark, summarize_rows
from genmask_jax.evaluation.predictions import score_predictions
from genmask_jax.utils.errors import UserError

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "score.py"


def truths(benchmark):
    items = benchmark.items()
    return [records.read_expression(*items[i]) for i in range(len(items))]


def predict(expression, rng):
    """A mask that is right in most pixels, and sometimes empty."""
    if rng.random() < 0.3:
        return np.zeros(expression.mask.shape, bool)
    return (expression.mask == 1) ^ (rng.random(expression.mask.shape) < 0.1)


def line(name, mask):
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"id": name, "rle": {"size": list(mask.shape), "counts": rle["counts"].decode()}}


def write_lines(path, lines):
    path.write_text("\n".join(json.dumps(entry) for entry in lines))
    return path


@pytest.fixture
def val(benchmark_data):
    return open_benchmark(benchmark_data.out, "refcoco:unc", "val")


@pytest.mark.parametrize(
    ("data", "split"), [("refcocog:umd", "test"), ("grefcoco:unc", "testA"), ("reasonseg", "val")]
)
def test_lines_and_pngs_score_as_the_reference_says(benchmark_data, tmp_path, data, split):
    benchmark, rng = open_benchmark(benchmark_data.out, data, split), np.random.default_rng(0)
    pairs, lines, folder = [], [], tmp_path / "pngs"
    folder.mkdir()
    for expression in truths(benchmark):
        mask = predict(expression, rng)
        pairs.append((mask, expression.mask))
        name = int(expression.id) if expression.id.isdigit() and len(lines) % 2 else expression.id
        lines.append(line(name, mask))
        pixels = mask.astype(np.uint8) * (255 if len(lines) % 3 else 1)
        pixels = np.stack([pixels] * 3, -1) if len(lines) % 4 == 0 else pixels
        Image.fromarray(pixels).save(folder / f"{expression.id}.png")
    rng.shuffle(lines)
    expected = reference(pairs)[benchmark.protocol]
    path = write_lines(tmp_path / "lines.jsonl", lines)
    command = [sys.executable, SCRIPT, f"--benchmark={benchmark.directory}:{split}", f"--predictions={path}"]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    printed = json.loads(completed.stdout.splitlines()[-1])
    assert printed == {
        "benchmark": f"{data}:{split}",
        **summarize_rows(benchmark.protocol, score_predictions(benchmark, folder)),
    }
    assert printed["count"] == len(pairs)
    assert printed.keys() - {"benchmark", "count"} == expected.keys()
    assert all(abs(printed[name] - value) < 1e-9 for name, value in expected.items())


def test_formats(val, tmp_path):
    path = write_lines(
        tmp_path / "p.jsonl", [line(expression.id, expression.mask == 1) for expression in truths(val)]
    )
    arguments = [sys.executable, SCRIPT, f"--benchmark={val.directory}:val", f"--predictions={path}"]
    printed = {
        format: subprocess.run(
            [*arguments, f"--format={format}"], capture_output=True, text=True, check=True
        ).stdout
        for format in ("papers", "json", "latex")
    }
    assert len(printed["json"].splitlines()) == 1
    assert {text.splitlines()[-1] for text in printed.values()} == {printed["json"].strip()}
    assert json.loads(printed["json"])["mIoU"] == 1
    assert "this, oIoU" in printed["papers"]
    assert "100.0" in printed["papers"]
    assert r"this, oIoU & 100.0 \\" in printed["latex"]


def corrupt(lines, problem):
    """Returns the predictions with one problem, and the expected error message."""
    first, size = lines[0], lines[0]["rle"]["size"]
    if problem == "missing":
        return lines[1:], f"id '{first['id']}' of refcoco:unc:val is missing"
    if problem == "double":
        return [*lines, first], f"id '{first['id']}' occurs twice"
    if problem == "unknown":
        return [*lines, {**first, "id": "nobody"}], "id 'nobody' is not in refcoco:unc:val"
    if problem == "size":
        rle = {"size": size[::-1] if size[0] != size[1] else [1, 1], "counts": first["rle"]["counts"]}
        return [{**first, "rle": rle}, *lines[1:]], f"id '{first['id']}': a mask of"
    if problem == "short":
        return [{**first, "rle": {"size": size, "counts": "0"}}, *lines[1:]], "do not add up"
    if problem == "damaged":
        return [{**first, "rle": {"size": size, "counts": "é~"}}, *lines[1:]], f"id '{first['id']}'"
    return [{"mask": 1}, *lines[1:]], "a line must be"


@pytest.mark.parametrize("problem", ["missing", "double", "unknown", "size", "short", "damaged", "line"])
def test_a_problem_is_named(val, tmp_path, problem):
    lines = [line(expression.id, expression.mask == 1) for expression in truths(val)]
    corrupted, message = corrupt(lines, problem)
    with pytest.raises(UserError) as caught:
        score_predictions(val, write_lines(tmp_path / "p.jsonl", corrupted))
    assert message in str(caught.value)


def test_invalid_files_give_one_line(val, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(UserError, match="no PNG"):
        score_predictions(val, folder)
    with pytest.raises(UserError, match="no such file"):
        score_predictions(val, tmp_path / "nothing")
    (tmp_path / "x").write_text('{"id": 1\n')
    with pytest.raises(UserError, match=r"x:1 is not JSON"):
        score_predictions(val, tmp_path / "x")
    for expression in truths(val):
        Image.fromarray((expression.mask == 1).astype(np.uint8) * 255).save(folder / f"{expression.id}.png")
    assert summarize_rows("refcoco", score_predictions(val, folder))["mIoU"] == 1
    grey = np.arange(np.prod(expression.mask.shape), dtype=np.uint8).reshape(expression.mask.shape)
    Image.fromarray(grey).save(folder / f"{expression.id}.png")
    with pytest.raises(UserError, match=rf"{expression.id}\.png is not a mask"):
        score_predictions(val, folder)
    Image.fromarray(grey[:-1]).save(folder / f"{expression.id}.png")
    with pytest.raises(UserError, match=rf"{expression.id}\.png has .* pixels, the image"):
        score_predictions(val, folder)
    (folder / f"{expression.id}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=rf"{expression.id}\.png is not a PNG"):
        score_predictions(val, folder)


def test_a_benchmark_is_opened_by_its_split_or_name(benchmark_data):
    assert open_benchmark(benchmark_data.out, "refcoco", "testA").name == "refcoco:unc:testA"
    with pytest.raises(UserError, match="several datasets"):
        open_benchmark(benchmark_data.out, "refcoco", "val")
    with pytest.raises(UserError, match="no split 'testC'; splits: testA, testB, train, val"):
        open_benchmark(benchmark_data.out, "refcoco:unc", "testC")
    with pytest.raises(UserError, match=r"prepare_data\.py"):
        open_benchmark(benchmark_data.raw, "refcoco", "val")
    with pytest.raises(UserError, match="has no expressions"):
        open_benchmark(benchmark_data.out, "coco_captions", "val")


def make_paletted(mask, palette):
    """A paletted image with index 0 in the mask, and 1 elsewhere."""
    image = Image.fromarray((~mask).astype(np.uint8), "P")
    image.putpalette(palette)
    return image


def test_a_paletted_mask_is_read_by_its_colours(val, tmp_path):
    for expression in truths(val):
        make_paletted(expression.mask == 1, [255, 255, 255, 0, 0, 0]).save(tmp_path / f"{expression.id}.png")
    assert summarize_rows("refcoco", score_predictions(val, tmp_path))["mIoU"] == 1
    make_paletted(expression.mask == 1, [255, 255, 255, 200, 0, 0]).save(tmp_path / f"{expression.id}.png")
    with pytest.raises(UserError, match="it has no black"):
        score_predictions(val, tmp_path)
