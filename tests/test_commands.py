"""Checks and output of the commands, called in this process."""

import argparse

import pytest
from etils import epath
from jax.errors import JaxRuntimeError

from genmask_jax import cli
from genmask_jax.commands import export_weights, finetune, sample
from genmask_jax.evaluation.report import _label_map_table
from genmask_jax.inference.segmentation import VIEWS, file_suffixes
from genmask_jax.pretrained import directory_of
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import need_makeable


def test_existing_files_are_not_overwritten(tmp_path):
    for name in ("mine_mask_1.png", "mine_mask.txt", "mine_mask_12.png", "mine.json"):
        (tmp_path / name).touch()
    out = epath.Path(tmp_path)
    sample.need_new(out, ["mine_mask.png", "mine_mask_2.png", "mine_overlay.png"], overwrite=False)
    sample.need_new(out, ["mine_mask_1.png"], overwrite=True)
    sample.need_new(out / "missing", ["mine_mask_1.png"], overwrite=False)
    with pytest.raises(UserError, match=r"holds mine_mask_1\.png already; add --overwrite"):
        sample.need_new(out, ["mine_mask.png", "mine_mask_1.png"], overwrite=False)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "error: the memory of this machine is full; "),
        (
            JaxRuntimeError("RESOURCE_EXHAUSTED: 8 GB"),
            "error: the memory of a device is full (RESOURCE_EXHAUSTED: 8",
        ),
        (KeyboardInterrupt(), "error: stopped"),
    ],
)
def test_memory_that_is_full_and_stops_get_one_line(capsys, error, line):
    def fail():
        raise error

    with pytest.raises(SystemExit):
        cli.guard(fail)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(line)


def test_files_of_views_by_the_number_of_phrases():
    assert file_suffixes("mask", 1) == ["mask.png"]
    assert file_suffixes("mask", 2) == ["mask_1.png", "mask_2.png"]
    assert file_suffixes("overlay", 1) == ["overlay.png"]
    assert file_suffixes("overlay", 2) == ["overlay.png", "overlay_legend.png"]
    assert [file_suffixes(view, 3) for view in ("rle", "boxes", "label_map")] == [
        ["rle.json"],
        ["boxes.json"],
        ["label_map.png"],
    ]


@pytest.mark.parametrize(
    ("text", "read"), [("the red star", ["the red star"]), (" a;b ;", ["a", "b"]), ("a;b; ; ", ["a", "b"])]
)
def test_texts_are_read(text, read):
    assert sample.read_texts(text) == read


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the red star; ;red circle", "--text=the red star; ;red circle: part 2 is empty"),
        (";a", "part 1 is empty"),
        (" ; ", "--text is empty"),
    ],
)
def test_an_empty_part_is_named(text, message):
    with pytest.raises(UserError) as caught:
        sample.read_texts(text)
    assert message in str(caught.value)


def test_an_empty_line_is_named(tmp_path):
    (tmp_path / "phrases.txt").write_text("a\n\nb\n\n")
    with pytest.raises(UserError, match=r"phrases.txt: line 2 is empty"):
        sample.read_texts(f"@{tmp_path}/phrases.txt")
    (tmp_path / "phrases.txt").write_text("a\nb\n\n")
    assert sample.read_texts(f"@{tmp_path}/phrases.txt") == ["a", "b"]


def make_arguments(tmp_path, **flags) -> argparse.Namespace:
    values = {"text": "a star", "save": "mask", "image": [], "reason": False, "count": 1, "seed": 0}
    values |= {"checkpoint": "refershapes", "step": "last", "out": str(tmp_path / "out"), "overwrite": False}
    values |= {"mask_threshold": None, "mask_steps": None, "mask_samples": None, "json": False}
    values |= {"no_target_area": None, "no_target_score": None}
    return argparse.Namespace(**values | {"image_steps": None, "guidance_scale": None} | flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"save": "maks"}, "--save=maks: choose from mask, overlay"),
        ({"image": ["nowhere.png"]}, "nowhere.png: there is no such file"),
        ({"image": ["nowhere.png"], "mask_samples": 65}, "mask_samples=65 must be from 1 to 64"),
        ({"image": ["nowhere.png"], "save": "uncertainty"}, "--save=uncertainty needs several noises"),
        (
            {"image": ["nowhere.png"], "count": 2},
            "--count=2 generates several images of a prompt, but --image",
        ),
        ({"count": 0}, "--count=0 must be positive"),
        ({"image_steps": 0}, "steps=0 must be a whole number from 1 on"),
    ],
)
def test_a_command_that_fails_leaves_no_folder(tmp_path, flags, message):
    with pytest.raises(UserError) as caught:
        sample.run(make_arguments(tmp_path, **flags))
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_directory_that_cannot_be_made_is_named_before_it_is(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(UserError, match=r"--out=.* cannot be created: .*file is a file"):
            need_makeable(path, "--out")
    need_makeable(tmp_path / "a" / "b", "--out")
    assert not (tmp_path / "a").exists()


def test_all_views_have_files():
    assert all(file_suffixes(view, 2) for view in VIEWS)


def test_finetune_resumes_existing_runs_and_tells_how_to_continue(tmp_path, monkeypatch, capsys):
    directory = epath.Path(tmp_path)
    assert finetune.workdir_flags(directory) == [f"--workdir={tmp_path}"]
    (tmp_path / "config.json").touch()
    assert finetune.workdir_flags(directory) == [f"--workdir={tmp_path}", "--resume"]
    for status in ((1, True), (1, False)):
        monkeypatch.setattr(finetune, "run_command", lambda *_, status=status: status)
        with pytest.raises(SystemExit):
            finetune.run_step("train")
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith("finetune: ")
        assert last.endswith("he finetune command, without --resume; finished steps are skipped")


def test_an_export_that_fails_prints_no_progress_and_leaves_no_folder(tmp_path, capsys):
    flags = {"name": "lora", "only": None, "dtype": None, "step": "last"}
    flags |= {"source": directory_of("refershapes"), "out": epath.Path(tmp_path / "out")}
    with pytest.raises(UserError):
        export_weights.export(argparse.Namespace(**flags))
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "out").exists()


def test_the_mean_with_pixels_of_no_class_has_a_clear_label():
    metrics = {"IoU": {"sky": 0.5}, "mIoU": 0.5, "mIoU_with_none": 0.663, "pixel_accuracy": 0.9}
    labels = list(_label_map_table(metrics).columns[0].cells)
    assert labels == ["sky", "mean", 'mean, with "no class" as a class', "pixel accuracy"]
