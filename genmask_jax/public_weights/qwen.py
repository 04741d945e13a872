"""Imports and exports public weights of Qwen2.5-VL and Qwen2.5.

An import writes `qwen/`, which contains config.json (of our model), params/ (Orbax) and hub/, copies of the
hub's other files (tokenizer, chat template, config.json). `config.instruction.qwen.weights` is the directory
that contains `qwen/`.
"""

from collections.abc import Callable

from etils import epath

from genmask_jax.instruction.qwen.config import QwenConfig, QwenInstructionConfig, need_shape
from genmask_jax.instruction.qwen.files import load_chat_template, load_tokenizer
from genmask_jax.instruction.qwen.imported import HUB, NAME, find_qwen, open_parameters
from genmask_jax.instruction.qwen.prompts import IMAGE, PromptMaker, QwenPreparer
from genmask_jax.instruction.qwen.vision import IMAGE_MEAN, IMAGE_STD
from genmask_jax.parameters.files import find_pickles, find_tensors, read_json, refuse_pickle
from genmask_jax.public_weights import qwen_names
from genmask_jax.public_weights.parts import Part, need_complete, write_public
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import listed, write_bytes

STEM = "model"
WEIGHT_FILES = (f"{STEM}*.safetensors", f"{STEM}.safetensors.index.json")
"""Patterns of the files with weights."""
HUB_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    "processor_config.json",
)


def open_qwen(source: epath.Path) -> Part:
    """Opens and checks public weights; reads only configs and headers.

    Args:
        source: folder of a model, as on the hub.

    Raises:
        UserError: a tensor is missing, unexpected or of the wrong shape, the model is another one, or its
            weights are pickled.
    """
    if not source.is_dir():
        problem = "this is a file; give its folder" if source.exists() else "there is no such directory"
        raise UserError(f"--from={source}: {problem}")
    files = find_tensors(source)
    if files is None:
        pickles = find_pickles(source)
        raise refuse_pickle(pickles[0]) if pickles else UserError(f"{source}: no *.safetensors here")
    config = qwen_names.config_from_public(read_json(source / "config.json"), str(source / "config.json"))
    tokenizer = load_tokenizer(source)
    if config.vision.depth:
        _need_images(source, config, tokenizer)
    need_shape(config, str(source / "config.json"))
    template = load_chat_template(source)
    try:  # checks the chat template before anything is written
        QwenPreparer(PromptMaker(tokenizer, template, config.vision, QwenInstructionConfig()))
    except UserError as error:
        raise UserError(f"--from={source}: {error}") from error
    entries = qwen_names.entries(config)
    renamed = files.rename(qwen_names.to_hub, {key for entry in entries for key in entry.keys})
    dropped = [qwen_names.TIED] if config.text.tied and qwen_names.TIED in files.shapes else []
    part = Part(NAME, config, entries, files, renamed, dropped)
    need_complete(part, source)
    return part


def _need_images(source: epath.Path, config: QwenConfig, tokenizer) -> None:
    if tokenizer.token_to_id(IMAGE) is None:
        raise UserError(f"{source / 'tokenizer.json'}: has no {IMAGE}; it belongs to another model")
    path, vision = source / "preprocessor_config.json", config.vision
    expected = {
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.merge_size,
    }
    values = read_json(path) if path.exists() else {}
    for name, value in expected.items():
        if values.get(name, value) != value:
            raise UserError(f"{path}: {name} is {values[name]!r}; only {value!r} is supported")


def copy_hub_files(source: epath.Path, out: epath.Path) -> None:
    """Copies the hub's files, without the weights, to OUT/qwen/hub."""
    hub = out / NAME / HUB
    hub.mkdir(parents=True, exist_ok=True)
    for name in HUB_FILES:
        if (source / name).exists():
            write_bytes(hub / name, (source / name).read_bytes())


def export_qwen(source: epath.Path, out: epath.Path, progress: Callable[[int], object]) -> str:
    """Exports an imported Qwen to OUT, in the layout of the hub.

    Returns:
        A one-line summary.

    Raises:
        UserError: the imported Qwen is missing or damaged.
    """
    config, folder = find_qwen(source, "--from")
    values = read_json(folder / HUB / "config.json")
    reader = open_parameters(config, folder)
    values["torch_dtype" if "torch_dtype" in values else "dtype"] = str(next(iter(reader.dtypes.values())))
    entries = qwen_names.entries(config)
    summary = write_public(out, values, entries, reader, {}, progress, STEM)
    for path in listed(folder / HUB):
        if path.name != "config.json":
            write_bytes(out / path.name, path.read_bytes())
    return summary
