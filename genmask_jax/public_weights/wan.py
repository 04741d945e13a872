"""Imports and exports public weights of Wan 2.1.

An import writes `dit/` and `vae/`, each with config.json and params/ (Orbax, in the dtype of the source).
`config.init` and `config.vae` name such directories.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from etils import epath

from genmask_jax.checkpoints.runs import find_step, open_ema, open_vae, read_config
from genmask_jax.config import TrainConfig
from genmask_jax.models.dit import DiTConfig
from genmask_jax.models.vae import VAEConfig
from genmask_jax.parameters.files import TensorFiles, find_pickles, find_tensors, read_json, refuse_pickle
from genmask_jax.parameters.reader import ParameterReader
from genmask_jax.public_weights import wan_dit, wan_vae
from genmask_jax.public_weights.lora import MergedReader
from genmask_jax.public_weights.parts import Part, Reader, need_complete, write_public
from genmask_jax.utils.errors import UserError

PARTS = ("dit", "vae")
EXPERT_FOLDERS = (("transformer", "transformer_2"), ("high_noise_model", "low_noise_model"))
"""Folders of models with two DiTs, in the layouts of diffusers and of Wan."""
TWO_EXPERTS = (
    "this model has two DiTs, {}, for different noise levels (like Wan 2.2 14B), which is not supported; "
    "use Wan 2.1"
)
HUB_PATTERNS = {
    "dit": ("transformer/*.json", "transformer/*.safetensors", "config.json", "diffusion_pytorch_model*"),
    "vae": ("vae/*.json", "vae/*.safetensors"),
}
"""Files of each part on the hub, in the layouts of diffusers and of Wan (whose VAE is a pickle)."""
DIFFUSERS_FOLDERS = {"dit": "transformer", "vae": "vae"}


def open_wan(source: epath.Path, parts: tuple[str, ...] = PARTS, text_dim: int | None = None) -> list[Part]:
    """Opens and checks public weights; reads only configs and headers.

    Args:
        source: folder of a model, in the layout of diffusers (transformer/, vae/) or of Wan.
        parts: parts to open, of "dit" and "vae".
        text_dim: number of channels of the instruction encoder; None for that of the weights. If they differ,
            the text projection is left out.

    Raises:
        UserError: a tensor is missing, unexpected or of the wrong shape, the model is another one, or its
            weights are pickled.
    """
    if not source.is_dir():
        problem = "this is a file; give its folder" if source.exists() else "there is no such directory"
        raise UserError(f"--from={source}: {problem}")
    _need_one_expert(source)
    models = [_open_dit(source, text_dim) if part == "dit" else _open_vae(source) for part in parts]
    for model in models:
        need_complete(model, source)
    return models


def check_names(names: list[str]) -> None:
    """Raises UserError if a repository with these files has two DiTs."""
    folders = {name.partition("/")[0] for name in names}
    for pair in EXPERT_FOLDERS:
        if folders.issuperset(pair):
            raise UserError(f"--from: {TWO_EXPERTS.format(' and '.join(pair))}")


def _need_one_expert(source: epath.Path) -> None:
    """Raises UserError for models with two DiTs, such as Wan 2.2 14B, and for folders of one of them."""
    for folder in (source, source.parent):
        for pair in EXPERT_FOLDERS:
            is_candidate = folder is source or source.name in pair
            if is_candidate and all((folder / name).is_dir() for name in pair):
                raise UserError(f"--from={source}: {TWO_EXPERTS.format(' and '.join(pair))}")


def _open_dit(source: epath.Path, text_dim: int | None) -> Part:
    folder = source / DIFFUSERS_FOLDERS["dit"] if (source / DIFFUSERS_FOLDERS["dit"]).is_dir() else source
    files = find_tensors(folder, lambda name: "vae" not in name.lower())
    files = _need_tensors(
        files, folder, "dit", [p for p in find_pickles(folder) if "diffusion" in p.name.lower()]
    )
    config = wan_dit.config_from_public(read_json(folder / "config.json"), str(folder / "config.json"))
    entries = wan_dit.entries(config)
    renamed = files.rename(wan_dit.to_diffusers, {key for entry in entries for key in entry.keys})
    part = Part("dit", config, entries, files, renamed, dropped=[])
    if text_dim not in (None, config.text_dim):
        fresh = [entry for entry in entries if entry.path.startswith(wan_dit.TEXT_PROJECTION)]
        part.config = dataclasses.replace(config, text_dim=text_dim)
        part.entries = [entry for entry in entries if entry not in fresh]
        part.dropped = [key for entry in fresh for key in entry.keys]
        part.fresh = [f"{entry.path} (text of {text_dim} channels, not {config.text_dim})" for entry in fresh]
    return part


def _open_vae(source: epath.Path) -> Part:
    folder = source / DIFFUSERS_FOLDERS["vae"]
    if folder.is_dir():
        files = _need_tensors(find_tensors(folder), folder, "vae", find_pickles(folder))
        where = folder / "config.json"
        config, mean, std = wan_vae.config_from_public(read_json(where), str(where))
    else:
        pickles = [path for path in find_pickles(source) if "vae" in path.name.lower()]
        files = _need_tensors(
            find_tensors(source, lambda name: "vae" in name.lower()), source, "vae", pickles
        )
        config, mean, std = VAEConfig(), wan_vae.LATENTS_MEAN, wan_vae.LATENTS_STD
    entries = wan_vae.entries(config)
    renamed = files.rename(wan_vae.to_diffusers, {key for entry in entries for key in entry.keys})
    statistics = {
        "latents_mean": np.asarray(mean, np.float32),
        "latents_std": np.asarray(std, np.float32),
    }
    return Part(
        "vae",
        config,
        entries,
        files,
        renamed,
        dropped=wan_vae.unused_keys(files.shapes),
        constants=statistics,
    )


def _need_tensors(
    files: TensorFiles | None, folder: epath.Path, part: str, pickles: list[epath.Path]
) -> TensorFiles:
    if files is not None:
        return files
    if pickles:
        raise refuse_pickle(pickles[0])
    other = {"dit": "vae", "vae": "dit"}[part]
    raise UserError(f"{folder}: no *.safetensors of the {part} here; add --only={other} to skip it")


def export_dit(source: epath.Path, out: epath.Path, which: str, progress: Callable[[int], object]) -> str:
    """Exports imported weights, or the EMA weights of a run, to OUT/transformer in the layout of diffusers.

    Returns:
        A one-line summary.

    Raises:
        UserError: there is no DiT, diffusers cannot represent it, or its text projection is missing.
    """
    config, reader = _find_dit(source, which)
    values, entries = wan_dit.config_to_public(config), wan_dit.entries(config)
    return write_public(out / DIFFUSERS_FOLDERS["dit"], values, entries, reader, {}, progress)


def export_vae(source: epath.Path, out: epath.Path, progress: Callable[[int], object]) -> str:
    """Exports a VAE to OUT/vae in the layout of diffusers. Weights that act between frames are zeros."""
    config = read_config(VAEConfig, source / "vae")
    reader = open_vae(source)
    mean, std = (reader.read(name).astype(float).tolist() for name in ("latents_mean", "latents_std"))
    # For example -0.7571: the shortest decimal that rounds to the float32 value is the published one.
    mean, std = ([float(str(np.float32(x))) for x in values] for values in (mean, std))
    values = wan_vae.config_to_public(config, mean, std)
    zeros = wan_vae.temporal_tensors(config)
    return write_public(
        out / DIFFUSERS_FOLDERS["vae"], values, wan_vae.entries(config), reader, zeros, progress
    )


def _find_dit(source: epath.Path, which: str) -> tuple[DiTConfig, Reader]:
    if (source / "dit").is_dir():
        return read_config(DiTConfig, source / "dit"), ParameterReader(source / "dit" / "params")
    config = read_config(TrainConfig, source)
    step = find_step(source, which)
    if config.model.lora_rank:
        reader = MergedReader(source, step, "dit.")
    else:
        reader = open_ema(source, step, "dit.")
    text_dim = reader.shapes[f"{wan_dit.TEXT_PROJECTION}.kernel"][0]
    channels = read_config(VAEConfig, source / "vae").channels
    model = dataclasses.replace(
        config.model,
        text_dim=text_dim,
        channels=channels,
        lora_rank=0,
        clean_embedding=config.objective.clean_frame == "learned",
    )
    return model, reader
