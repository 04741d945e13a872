"""What `fuzz.py` tries: for each reader of files, configs and requests, how inputs are made and checked.

A target reads an input or raises UserError. Anything else, an unreadable result included, is a finding.
"""

import json
import pathlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import safetensors.numpy
from etils import epath

from genmask_jax import cli
from genmask_jax.checkpoints.packed import PackedReader, read_step
from genmask_jax.checkpoints.runs import read_config, read_vae_config
from genmask_jax.config import TrainConfig
from genmask_jax.config.checks import from_config_dict
from genmask_jax.data import masks
from genmask_jax.data.raw_formats.black_and_white import values_of
from genmask_jax.data.raw_formats.label_files import palette_of, read_colours, read_numbers
from genmask_jax.evaluation.predictions import read_predictions
from genmask_jax.instruction import factory
from genmask_jax.parameters.files import TensorFiles, find_tensors
from genmask_jax.pretrained import directory_of
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import to_model_size, to_rgb
from tests.faults import corpus
from tests.faults.mutations import VALUES, mutate_bytes, mutate_file, mutate_json, mutate_value
from tests.faults.raw_targets import class_lists, layout, layouts, need_named
from tests.faults.target import Target

# Images and masks


def _image(rng: random.Random) -> bytes:
    files = corpus.images_list()
    return mutate_bytes(rng, rng.choice(files), rng.choice(files))


def read_image(content: bytes) -> None:
    """Decodes an image as the commands and the page do."""
    pixels = to_rgb(content)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert to_model_size(pixels, 8).shape == (8, 8, 3)


def _label_file(rng: random.Random) -> tuple[str, bytes]:
    files = {**corpus.images(), **corpus.arrays()}
    name = rng.choice(list(files))
    return f"mask{pathlib.Path(name).suffix}", mutate_bytes(
        rng, files[name], rng.choice(list(files.values()))
    )


def label_files(root: pathlib.Path) -> Target:
    """Masks of numbers, colours and palettes, and masks of predictions."""

    def read(made: tuple[str, bytes]) -> None:
        path = epath.Path(root / made[0])
        path.write_bytes(made[1])
        refused = 0
        for read_one in (read_numbers, read_colours, values_of):
            try:
                read_one(path)
            except ValueError as error:
                refused += 1
                need_named(error, root)
        palette_of(path)
        if refused:
            raise UserError(f"{path}: refused")

    return Target(_label_file, read)


# Masks as run lengths and polygons


def _segmentation(rng: random.Random) -> tuple[Any, tuple[int, int]]:
    content = rng.choice(corpus.coco()["annotations"])["segmentation"]
    value = mutate_value(rng, {"segmentation": content}) if rng.random() < 0.9 else {"segmentation": content}
    if rng.random() < 0.3 and isinstance(content, dict) and isinstance(content["counts"], str):
        counts = mutate_bytes(rng, content["counts"].encode()).decode("latin-1")
        value = {"segmentation": {**content, "counts": counts}}
    size = rng.choice((corpus.SIZE, corpus.SIZE, (1, 1), (1, 20_000), (192, 1), (10**4, 10**4)))
    return (value.get("segmentation") if isinstance(value, dict) else value), size


def read_segmentation(made: tuple[Any, tuple[int, int]]) -> None:
    """Reads polygons or run lengths of an image of a size."""
    segmentation, size = made
    try:
        usable, _ = masks.usable(segmentation, size)
    except ValueError as error:
        raise UserError(str(error)) from error
    counts = masks.from_coco(usable, size)
    masks.need_valid(counts, size)
    assert masks.area(counts, size) > 0


# Weights and configs


def safetensors_files(root: pathlib.Path) -> Target:
    """Headers and indices of safetensors."""
    tensors = {"dit.a": np.ones((3, 4), np.float32), "b": np.zeros(5, np.float16)}
    content = safetensors.numpy.save(tensors, metadata={"step": "3"})
    length = int.from_bytes(content[:8], "little")
    index = {"weight_map": {"dit.a": "model.safetensors", "b": "model.safetensors"}}

    def make(rng: random.Random) -> tuple[str, bytes]:
        if rng.random() < 0.2:
            return "model.safetensors.index.json", mutate_json(rng, index)
        if rng.random() < 0.4:
            return "model.safetensors", mutate_bytes(rng, content)
        header = mutate_json(rng, json.loads(content[8 : 8 + length]))
        size = len(header) if rng.random() < 0.9 else rng.choice((0, 2**60, 2**31, len(header) + 1))
        return "model.safetensors", size.to_bytes(8, "little") + header + content[8 + length :]

    def read(made: tuple[str, bytes]) -> None:
        (root / "model.safetensors").write_bytes(content)
        (root / made[0]).write_bytes(made[1])
        try:
            files = find_tensors(epath.Path(root))
            assert files is not None
            for key, shape in files.shapes.items():
                assert files.read(key).shape == shape
            TensorFiles([epath.Path(root / "model.safetensors")])
            assert read_step(root) >= 0
        finally:
            (root / made[0]).unlink()

    return Target(make, read)


def packed_models(root: pathlib.Path) -> Target:
    """Configs, tokenizer and digests of a packed model."""
    source = pathlib.Path(directory_of("refershapes_small"))
    names = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    files = {
        name: (source / name).read_bytes() for name in names if not name.endswith((".md", ".safetensors"))
    }
    weights = safetensors.numpy.save({"dit.a": np.ones(3, np.float32)}, metadata={"step": "3"})
    files |= {"model.safetensors": weights, "vae/model.safetensors": weights}
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    def make(rng: random.Random) -> tuple[str, bytes]:
        name = rng.choice(list(files))
        return name, mutate_file(rng, name, files[name])

    def read(made: tuple[str, bytes]) -> None:
        name, content = made
        (root / name).write_bytes(content)
        try:
            config = read_config(TrainConfig, root)
            read_vae_config(root)
            read_step(root)
            reader = PackedReader(root, "dit.")
            for parameter in reader.shapes:
                reader.read(parameter)
            factory.build(config.instruction, root / "instruction").preparer("the red star")
        finally:
            (root / name).write_bytes(files[name])

    return Target(make, read)


def run_configs(root: pathlib.Path) -> Target:
    """config.json of a run."""
    source = json.loads((pathlib.Path(directory_of("refershapes_small")) / "config.json").read_text())

    def read(content: bytes) -> None:
        (root / "config.json").write_bytes(content)
        config = read_config(TrainConfig, root)
        assert config.model.depth > 0

    return Target(lambda rng: mutate_json(rng, source), read)


def config_fields() -> Target:
    """Fields of configs, as flags."""
    names = list(_field_names(cli.config_files.load_config("genmask_tiny")))

    def make(rng: random.Random) -> list[str]:
        chosen = rng.sample(names, rng.choice((1, 1, 2, 3)))
        return [f"--config.{name}={_argument(rng)}" for name in chosen]

    def read(arguments: list[str]) -> None:
        from_config_dict(TrainConfig, cli.read_config(["--config=genmask_tiny", *arguments]))

    return Target(make, read)


def _field_names(config: Any, prefix: str = "") -> Iterator[str]:
    for name, value in config.items():
        if hasattr(value, "items"):
            yield from _field_names(value, f"{prefix}{name}.")
        yield f"{prefix}{name}"


def _argument(rng: random.Random) -> str:
    value = rng.choice(VALUES)
    return str(value).replace("\0", "") if rng.random() < 0.8 else json.dumps(value)


def predictions(root: pathlib.Path) -> Target:
    """Predictions that `score` reads."""
    lines = [json.dumps({"id": str(i), "rle": corpus.rle()}) for i in range(2)]
    masks_of = [corpus.encoded(corpus.Image.fromarray(corpus.MASK * 255), "PNG"), *corpus.images_list()]

    def make(rng: random.Random) -> tuple[str, bytes]:
        if rng.random() < 0.3:
            return "masks/1.png", mutate_bytes(rng, rng.choice(masks_of))
        value = mutate_value(rng, json.loads(lines[0]))
        one = mutate_json(rng, value) if rng.random() < 0.5 else json.dumps(value).encode()
        return "lines.jsonl", one + b"\n" + lines[1].encode()

    def read(made: tuple[str, bytes]) -> None:
        path = root / made[0]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(made[1])
        for reader in read_predictions(path if path.suffix == ".jsonl" else path.parent).values():
            assert reader(corpus.SIZE).shape == corpus.SIZE

    return Target(make, read)


# Requests of the page


def requests(handlers: Any, root: pathlib.Path) -> Target:
    """Requests to the page's handlers, whose networks are replaced: only a request's values matter here."""
    from genmask_jax.inference.segmenter import _make_result
    from genmask_jax.tools.demo import views

    def fast_segment(images, texts, unknown, noises, indices):
        rng = np.random.default_rng(0)
        mean = rng.random((len(texts), 8, 8), np.float32)
        deviation = mean / 4 if noises else None
        return [
            _make_result(image, texts, unknown, mean, deviation, handlers.segmenter.sampler)
            for image in images
        ]

    def fast_steps(prompt, *, seed, steps, guidance_scale):
        handlers.generator._prepare(prompt, seed, steps, guidance_scale)
        return [corpus.Image.fromarray(corpus.PIXELS)] * steps

    handlers.segmenter._segment, handlers.generator.steps = fast_segment, fast_steps

    def make(rng: random.Random) -> tuple[Any, ...]:
        text = rng.choice(("the red star", "a; b", "\n".join("abc"), "<script>x</script>", "x" * 199))
        if rng.random() < 0.5:
            content = _image(rng) if rng.random() < 0.5 else rng.choice(corpus.images_list())
            kind, values = "segment", [content, text, rng.choice((0.5, 0.05))]
        else:
            kind, values = (
                "generate",
                [text, rng.choice((0, 7)), rng.choice((1, 2)), 1.5, rng.choice((5, 10))],
            )
        if rng.random() < 0.7:
            first = 1 if kind == "segment" else 0  # the image is damaged already
            values[rng.randrange(first, len(values))] = rng.choice(VALUES)
        return kind, *values

    def read(made: tuple[Any, ...]) -> None:
        kind, *values = made
        if kind == "generate":
            frames = handlers.generate(*values)
            need_escaped(views.candidates(frames, values[0], 3))
            return
        content, text, threshold = values
        path = None
        if content is not None:
            path = root / "upload.png"
            path.write_bytes(content)
        result = handlers.segment(path and str(path), text)
        view = handlers.render(result, threshold)
        need_escaped(views.overlay(view) + views.details(view, 4) + views.message(*views.summarize(result)))
        json.dumps(view.result.to_dict(), allow_nan=False)

    return Target(make, read)


def need_escaped(html: str) -> None:
    """Fails if text of a request is markup."""
    assert "<script" not in html


def all_targets(root: pathlib.Path) -> dict[str, Callable[[], Target]]:
    """What makes each target, by name, in folders below an empty one."""

    def folder_of(name: str) -> pathlib.Path:
        (root / name).mkdir(exist_ok=True)
        return root / name

    def page() -> Target:
        from genmask_jax.inference.load import load
        from genmask_jax.tools.demo.handlers import Handlers

        networks, config, _ = load("refershapes_small")
        return requests(Handlers(networks, config), folder_of("requests"))

    return {
        "images": lambda: Target(_image, read_image),
        "label_files": lambda: label_files(folder_of("label_files")),
        "segmentations": lambda: Target(_segmentation, read_segmentation),
        **{name: lambda name=name: layout(name, folder_of(name)) for name in layouts()},
        "class_lists": lambda: class_lists(folder_of("class_lists")),
        "safetensors": lambda: safetensors_files(folder_of("safetensors")),
        "packed_models": lambda: packed_models(folder_of("packed_models")),
        "run_configs": lambda: run_configs(folder_of("run_configs")),
        "config_fields": config_fields,
        "predictions": lambda: predictions(folder_of("predictions")),
        "requests": page,
    }
