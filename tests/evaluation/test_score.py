"""launch/score.py: anyone's predictions, checked id by id, against a reference of its own."""

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


def guess(asked, rng):
    """Right in some pixels, empty at times."""
    if rng.random() < 0.3:
        return np.zeros(asked.mask.shape, bool)
    return (asked.mask == 1) ^ (rng.random(asked.mask.shape) < 0.1)


def line(name, mask):
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"id": name, "rle": {"size": list(mask.shape), "counts": rle["counts"].decode()}}


def write_lines(path, lines):
    path.write_text("\n".join(json.dumps(one) for one in lines))
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
    for asked in truths(benchmark):
        mask = guess(asked, rng)
        pairs.append((mask, asked.mask))
        name = int(asked.id) if asked.id.isdigit() and len(lines) % 2 else asked.id
        lines.append(line(name, mask))
        pixels = mask.astype(np.uint8) * (255 if len(lines) % 3 else 1)
        pixels = np.stack([pixels] * 3, -1) if len(lines) % 4 == 0 else pixels
        Image.fromarray(pixels).save(folder / f"{asked.id}.png")
    rng.shuffle(lines)
    expected = reference(pairs)[benchmark.protocol]
    path = write_lines(tmp_path / "lines.jsonl", lines)
    command = [sys.executable, SCRIPT, f"--benchmark={benchmark.directory}:{split}", f"--predictions={path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed == {
        "benchmark": f"{data}:{split}",
        **summarize_rows(benchmark.protocol, score_predictions(benchmark, folder)),
    }
    assert printed["count"] == len(pairs)
    assert printed.keys() - {"benchmark", "count"} == expected.keys()
    assert all(abs(printed[name] - value) < 1e-9 for name, value in expected.items())


def test_formats(val, tmp_path):
    path = write_lines(tmp_path / "p.jsonl", [line(asked.id, asked.mask == 1) for asked in truths(val)])
    arguments = [sys.executable, SCRIPT, f"--benchmark={val.directory}:val", f"--predictions={path}"]
    printed = {
        form: subprocess.run(
            [*arguments, f"--format={form}"], capture_output=True, text=True, check=True
        ).stdout
        for form in ("papers", "json", "latex")
    }
    assert len(printed["json"].splitlines()) == 1
    assert {text.splitlines()[-1] for text in printed.values()} == {printed["json"].strip()}
    assert json.loads(printed["json"])["mIoU"] == 1
    assert "this, oIoU" in printed["papers"]
    assert "100.0" in printed["papers"]
    assert r"this, oIoU & 100.0 \\" in printed["latex"]


def change(lines, tmp_path, what):
    """The predictions with one thing wrong, and what must be said of it."""
    first, size = lines[0], lines[0]["rle"]["size"]
    if what == "missing":
        return lines[1:], f"id '{first['id']}' of refcoco:unc:val is missing"
    if what == "double":
        return [*lines, first], f"id '{first['id']}' occurs twice"
    if what == "unknown":
        return [*lines, {**first, "id": "nobody"}], "id 'nobody' is not in refcoco:unc:val"
    if what == "size":
        rle = {"size": size[::-1] if size[0] != size[1] else [1, 1], "counts": first["rle"]["counts"]}
        return [{**first, "rle": rle}, *lines[1:]], f"id '{first['id']}': a mask of"
    if what == "short":
        return [{**first, "rle": {"size": size, "counts": "0"}}, *lines[1:]], "do not add up"
    if what == "damaged":
        return [{**first, "rle": {"size": size, "counts": "é~"}}, *lines[1:]], f"id '{first['id']}'"
    return [{"mask": 1}, *lines[1:]], "a line must be"


@pytest.mark.parametrize("what", ["missing", "double", "unknown", "size", "short", "damaged", "line"])
def test_what_is_wrong_is_named(val, tmp_path, what):
    lines = [line(asked.id, asked.mask == 1) for asked in truths(val)]
    changed, says = change(lines, tmp_path, what)
    with pytest.raises(UserError) as caught:
        score_predictions(val, write_lines(tmp_path / "p.jsonl", changed))
    assert says in str(caught.value)


def test_files_that_are_no_predictions_get_one_line(val, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(UserError, match="no PNG"):
        score_predictions(val, folder)
    with pytest.raises(UserError, match="no such file"):
        score_predictions(val, tmp_path / "nothing")
    (tmp_path / "x").write_text('{"id": 1\n')
    with pytest.raises(UserError, match=r"x:1 is not JSON"):
        score_predictions(val, tmp_path / "x")
    for asked in truths(val):
        Image.fromarray((asked.mask == 1).astype(np.uint8) * 255).save(folder / f"{asked.id}.png")
    assert summarize_rows("refcoco", score_predictions(val, folder))["mIoU"] == 1
    grey = np.arange(np.prod(asked.mask.shape), dtype=np.uint8).reshape(asked.mask.shape)
    Image.fromarray(grey).save(folder / f"{asked.id}.png")
    with pytest.raises(UserError, match=rf"{asked.id}\.png is not a mask"):
        score_predictions(val, folder)
    Image.fromarray(grey[:-1]).save(folder / f"{asked.id}.png")
    with pytest.raises(UserError, match=rf"{asked.id}\.png has .* pixels, the image"):
        score_predictions(val, folder)
    (folder / f"{asked.id}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=rf"{asked.id}\.png is not a PNG"):
        score_predictions(val, folder)


def test_a_benchmark_is_found_by_its_split_or_named(benchmark_data):
    assert open_benchmark(benchmark_data.out, "refcoco", "testA").name == "refcoco:unc:testA"
    with pytest.raises(UserError, match="several datasets"):
        open_benchmark(benchmark_data.out, "refcoco", "val")
    with pytest.raises(UserError, match="no split 'testC'; splits: testA, testB, train, val"):
        open_benchmark(benchmark_data.out, "refcoco:unc", "testC")
    with pytest.raises(UserError, match=r"prepare_data\.py"):
        open_benchmark(benchmark_data.raw, "refcoco", "val")
    with pytest.raises(UserError, match="has no expressions"):
        open_benchmark(benchmark_data.out, "coco_captions", "val")


def paletted(mask, palette):
    """A PNG of indices: 0 where the mask is."""
    image = Image.fromarray((~mask).astype(np.uint8), "P")
    image.putpalette(palette)
    return image


def test_a_paletted_mask_is_what_it_shows(val, tmp_path):
    for asked in truths(val):
        paletted(asked.mask == 1, [255, 255, 255, 0, 0, 0]).save(tmp_path / f"{asked.id}.png")
    assert summarize_rows("refcoco", score_predictions(val, tmp_path))["mIoU"] == 1
    paletted(asked.mask == 1, [255, 255, 255, 200, 0, 0]).save(tmp_path / f"{asked.id}.png")
    with pytest.raises(UserError, match="its palette has no black"):
        score_predictions(val, tmp_path)
