"""Converts public Qwen2.5-VL and Qwen2.5 weights to our Orbax directories and back.

Our directory contains `qwen/`: config.json (ours), params/ (Orbax) and hub/, unchanged copies of the hub's
small files (tokenizer, chat template, config.json). `config.instruction.qwen.weights` is such a directory.
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
"""Patterns of the weights' files."""
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
    """Finds and checks public weights; reads only configs and headers.

    Args:
        source: a model's folder as on the hub.

    Raises:
        UserError: something is missing, left over, of the wrong shape, of another model, or pickled.
    """
    if not source.is_dir():
        what = "this is a file; give its folder" if source.exists() else "there is no such directory"
        raise UserError(f"--from={source}: {what}")
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
    try:  # renders the prompts of a run, before anything is written
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
        raise UserError(f"{source / 'tokenizer.json'}: {IMAGE} is not in it; it is of another model")
    path, vision = source / "preprocessor_config.json", config.vision
    wanted = {
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.merge_size,
    }
    values = read_json(path) if path.exists() else {}
    for name, value in wanted.items():
        if values.get(name, value) != value:
            raise UserError(f"{path}: {name} is {values[name]!r}; only {value!r} is supported")


def copy_hub_files(source: epath.Path, out: epath.Path) -> None:
    """Copies the small files beside the weights to OUT/qwen/hub."""
    hub = out / NAME / HUB
    hub.mkdir(parents=True, exist_ok=True)
    for name in HUB_FILES:
        if (source / name).exists():
            write_bytes(hub / name, (source / name).read_bytes())


def export_qwen(source: epath.Path, out: epath.Path, progress: Callable[[int], object]) -> str:
    """Writes OUT as on a model hub, from a directory of ours.

    Returns:
        A one-line summary of what was written.

    Raises:
        UserError: the imported Qwen is missing or damaged.
    """
    config, folder = find_qwen(source, "--from")
    values = read_json(folder / HUB / "config.json")
    reader = open_parameters(config, folder)
    values["torch_dtype" if "torch_dtype" in values else "dtype"] = str(next(iter(reader.dtypes.values())))
    entries = qwen_names.entries(config)
    line = write_public(out, values, entries, reader, {}, progress, STEM)
    for path in listed(folder / HUB):
        if path.name != "config.json":
            write_bytes(out / path.name, path.read_bytes())
    return line
