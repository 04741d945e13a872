"""What README and docs print runs: every command and Python block, in the order of its page, at a small size.

A command that ends in a comment such as "needs a card" is left out: it needs what a test cannot have.
"""

import functools
import itertools
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from test_docs import PAGES, ROOT, code_blocks
from test_end_to_end import run_script
from test_finetune import SMALL as SMALL_FINETUNE
from test_finetune import write_leaves

from genmask_jax.data.prepared import records

NEEDS = re.compile(r"#.*\bneeds (a pod|a card|a download|16 GB|data/stamps|the extra (tpu|gpu))")
COMMAND = re.compile(r"(?:/usr/bin/time -v )?(?:\.venv/bin/)?python launch/(\w+)\.py(.*)")

STANDS_FOR = {
    "RAW": "raw/refer", "REASONSEG": "raw/reasonseg", "COCO": "raw/coco", "MY_IMAGES": "my_images",
    "DIR": "runs/dir", "SEED": "1", "SHARE": "0.5", "A": "0.01", "PASSES": "2", "NAME": "muon",
    "RATE": "1e-3", "STEPS": "2", "T": "0.01", "AREA": "0", "SCORE": "0.9",
}  # fmt: skip
"""Values of what a page leaves to the reader."""

RUN = (
    "--config.loop.num_steps=2", "--config.loop.eval_every_steps=2", "--config.loop.checkpoint_every_steps=2",
    "--config.loop.global_batch_size=4", "--config.loop.num_eval_examples=32",
    "--config.optimizer.warmup_steps=1", "--overwrite",
)  # fmt: skip
SMALL = {
    "train": (*RUN, "--config.sampler.image_steps=2"),
    "train_vae": RUN,
    "finetune": (*SMALL_FINETUNE, "--workdir=runs/photographs"),
    "evaluate": ("--batch_size=4", "--image_steps=2", "--num_images=4"),
    "evaluate --benchmark": ("--data=data",),
    "evaluate --config=configs/evaluate_refcoco.py": ("--data=data",),
    "evaluate --split": ("--count=8",),
    "sweep": (
        "--base.loop.num_steps=2",
        "--base.loop.global_batch_size=4",
        "--base.loop.num_eval_examples=4",
        "--evaluate.count=4",
        "--evaluate.batch_size=4",
        "--seeds=0",
        "--processes=1",
    ),
    "sweep --config=configs/ablations/mask_timesteps.py": ("--variants=uniform,long_tail_0.05",),
    "sweep --config=configs/ablations/baselines.py": ("--variants=genmask",),
    "encode_latents": ("--count=16",),
    "analyze_latents": ("--count=16",),
    "prepare_data": ("--out=prepared_again",),
    "prepare_data --inspect": (),
    "benchmark train_step": ("--size=1x64", "--batch_size=1", "--height=8", "--width=8", "--rounds=1"),
    "benchmark sampler": ("--size=tiny", "--image_size=64", "--repeats=1"),
    "benchmark vae": ("--image_size=64", "--repeats=1"),
    "benchmark input_pipeline": ("--seconds=1",),
}
"""Flags that make a command small: those of its script, and of what it is given."""


def runnable(page: pathlib.Path) -> list[list[str]]:
    """The page's commands as script and arguments, without those that need what is not here."""
    lines = [line for block in code_blocks(page) for line in block.splitlines()]
    found = [COMMAND.match(re.sub(r"[][]", "", line)) for line in lines if not NEEDS.search(line)]
    return [[one[1], *shlex.split(one[2], comments=True)] for one in found if one]


def filled_in(words: list[str]) -> list[str]:
    """The command with values for what the reader is to fill in, and small."""
    script, *given = words
    given = [re.sub(r"(?<==)[A-Z_]+$", lambda name: STANDS_FOR.get(name[0], name[0]), word) for word in given]
    keys = dict.fromkeys(key for word in given for key in (word, word.split("=")[0]))
    small = [SMALL.get(script, ()), *(SMALL.get(f"{script} {key}", ()) for key in keys)]
    return [script, *given, *itertools.chain(*small)]


@functools.cache
def run(cwd: pathlib.Path, script: str, *arguments: str) -> None:
    done = run_script(script, *arguments, cwd=cwd)
    assert done.returncode == 0, f"{script} {shlex.join(arguments)}\n{done.stderr[-4000:]}"


@pytest.fixture(scope="module")
def world(benchmark_data, micro_run, tmp_path_factory):
    """A checkout in which a reader has done what the pages take for granted."""
    place = tmp_path_factory.mktemp("world")
    for name in ("launch", "configs", "docs", "baselines"):
        (place / name).symlink_to(ROOT / name)
    (place / "raw").symlink_to(benchmark_data.raw)
    shutil.copytree(benchmark_data.out, place / "data")
    write_leaves(place / "my_images")
    for photograph in ("street.jpg", "park.jpg"):
        shutil.copy(place / "my_images" / "0.jpg", place / photograph)
    for directory in ("genmask_l", "tiny", "seed1", "mine/model"):
        shutil.copytree(micro_run[0], place / "runs" / directory)
    write_predictions(place)
    recipe = subprocess.run(
        ["make", "-n", "-s", "-o", ".venv/installed", "quickstart"], cwd=ROOT, capture_output=True, text=True
    )
    for line in recipe.stdout.replace("\\\n", " ").splitlines():
        if command := COMMAND.match(line.strip()):
            run(place, *filled_in([command[1], *shlex.split(command[2])]))
    return place


def write_predictions(place: pathlib.Path) -> None:
    """The true masks, as `launch/score.py` reads them."""
    rows = []
    for record in records.open_records(records.find(str(place / "data"), "refcoco:unc"), "testA"):
        for i in range(len(record["expressions"]["id"])):
            asked = records.read_expression(record, i)
            rle = coco.encode(np.asfortranarray(asked.mask == 1, np.uint8))
            rle["counts"] = rle["counts"].decode()
            rows.append(json.dumps({"id": asked.id, "rle": rle}))
    for name in ("testA", "anyones"):
        (place / f"{name}.jsonl").write_text("\n".join(rows))
    (place / "masks").mkdir()
    for record in records.open_records(records.find(str(place / "data"), "reasonseg"), "val"):
        asked = records.read_expression(record, 0)  # the benchmark asks for an image's first text alone
        mask = Image.fromarray(np.where(asked.mask == 1, 255, 0).astype(np.uint8))
        mask.save(place / "masks" / f"{asked.id}.png")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page, world):
    for words in runnable(page):
        run(world, *filled_in(words))


def python_of(page: pathlib.Path) -> str:
    """All Python of a page, block after block as one program."""
    start = r"(from|import|for|segmenter|generator|result|images?)\b"
    blocks = [block for block in code_blocks(page) if re.match(start, block)]
    return "\n".join(blocks)


def run_python(program: str, cwd: pathlib.Path) -> None:
    done = subprocess.run([sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_python_of_the_readme_runs(tmp_path):
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    run_python(python_of(PAGES[0]), tmp_path)
    written = {path.name for path in (tmp_path / "runs/found").iterdir()}
    assert written >= {"mask_1.png", "mask_2.png", "overlay.png"}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES[1:] if python_of(page)], ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page, world, request):
    program = python_of(page)
    if "gradio_client" in program:
        program = program.replace("http://127.0.0.1:7860", request.getfixturevalue("address"))
    run_python(program, world)
