"""Starts and resumes runs: everything that can be wrong is found before anything is deleted or written."""

from collections.abc import Callable, Sequence
from typing import Any

from absl import logging
from etils import epath

from genmask_jax.checkpoints.initial_weights import InitialWeights, keep_base, open_base, open_weights
from genmask_jax.checkpoints.runs import load_vae, save_vae, vae_source
from genmask_jax.config import TrainConfig, VAETrainConfig
from genmask_jax.data.latents.cached_instruction import cached_instruction
from genmask_jax.data.latents.store import fingerprint, need_same, need_same_instruction, read_identity
from genmask_jax.data.mirror import report
from genmask_jax.data.sources import check as check_data
from genmask_jax.data.sources import segment_source, texts, texts_of_split
from genmask_jax.instruction import factory, tiny
from genmask_jax.instruction.base import ClosedVocabulary, Instruction, warn_of_long_texts
from genmask_jax.models.vae import VAEConfig
from genmask_jax.parameters.rules import Sources
from genmask_jax.sharding import make_mesh
from genmask_jax.system import Networks, make_networks
from genmask_jax.training.genmask import GenMaskTask
from genmask_jax.training.loop import check_batch, rehearse, train
from genmask_jax.training.state import TrainState
from genmask_jax.training.stopping import StopRequests
from genmask_jax.training.vae import VAETask
from genmask_jax.training.workdir import Workdir, check_workdir, make_workdir
from genmask_jax.utils import hosts
from genmask_jax.utils.errors import UserError

UNTRAINED = "stopped before a step was made; nothing is lost, and the same command with --resume goes on"
INSTRUCTION = "instruction"
"""In a run's directory: what belongs to its instruction encoder."""


def train_genmask(
    config: TrainConfig,
    workdir: str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    change: Sequence[str] = (),
    profile: range = range(0),
    make_task: Callable[..., GenMaskTask] = GenMaskTask,
) -> tuple[TrainState, dict[str, float]]:
    """Trains GenMask in a directory.

    Args:
        config: of the run.
        workdir, resume, overwrite, change: see `check_workdir`.
        profile: steps to trace.
        make_task: (networks, config) -> the task; tests make it eventful.

    Returns:
        The last state, and the scores of the last validation.

    Raises:
        UserError: the directory, the config, the data or the weights cannot be used.
        SystemExit: see `loop.train`.
    """
    with StopRequests(UNTRAINED) as stop:
        place = check_workdir(workdir, config, resume=resume, overwrite=overwrite, change=change)
        task = _make_run(place, config, make_task)
        return train(task, config, place.path, stop, profile)


def _make_run(place: Workdir, config: TrainConfig, make_task: Callable[..., GenMaskTask]) -> GenMaskTask:
    """Checks everything, then makes the run's directory. Returns what is trained."""
    vae_config, vae_state = _vae_of(place, config)
    _need_data(config, vae_config, vae_state)
    init = _open_init(place, config)
    said = [] if _kept_encoder(place) else texts(config.data)
    init = _without_foreign_encoder(place, config, init, said)
    encoder = _make_encoder(place, config, init, said)
    mesh = make_mesh(config.mesh)
    check_batch(config.loop, mesh)
    vae = vae_source(place.path if _has_vae(place) else config.vae)
    sources = Sources(vae=vae, init=init, restored=place.begun)
    networks = make_networks(config, vae_config, vae_state, encoder, mesh, sources)
    task = make_task(networks, config)
    if place.overwrite:
        rehearse(task, config)
    make_workdir(place, config)
    if not _has_vae(place):
        save_vae(place.path, vae_config, vae_state)
    if hosts.is_first():
        _keep(place, networks)
    hosts.wait("instruction encoder saved")
    return task


def _has_vae(place: Workdir) -> bool:
    return place.resumed and (place.path / "vae" / "config.json").exists()


def _vae_of(place: Workdir, config: TrainConfig) -> tuple[VAEConfig, Any]:
    """A resumed run's own VAE, which the latents it has learned are of; the config's in a new run."""
    if not _has_vae(place):
        return load_vae(config.vae)
    own = load_vae(place.path)
    try:
        named = load_vae(config.vae)
    except UserError:
        return own  # it has gone, and is not needed
    if fingerprint(*named) != fingerprint(*own):
        logging.warning(
            "config.vae=%s is not the VAE that the run began with; it goes on with its own, %s",
            config.vae,
            place.path / "vae",
        )
    return own


def _need_data(config: TrainConfig, vae_config: VAEConfig, vae_state: Any) -> None:
    """Raises UserError if the data cannot be used; logs how many of its texts allow mirrored images."""
    check_data(config.data)
    if config.data.latents:
        need_same(config.data, vae_config, vae_state)
    if config.data.augment.flip > 0:
        for what, some in texts_of_split(config.data).items():
            told = report(some, config.data.augment.flip_words)
            logging.info("%s from the start of the train split: %s", what, told)


def _open_init(place: Workdir, config: TrainConfig) -> InitialWeights | None:
    """The weights of `config.init`, if the run needs them: to start from, or under its adapters."""
    if config.model.lora_rank:
        return open_base(config, place.path if place.resumed else None)
    return open_weights(config.init) if config.init and not place.begun else None


def _kept_encoder(place: Workdir) -> epath.Path | None:
    """What a resumed run has of its instruction encoder: its tokenizer stays."""
    kept = place.path / INSTRUCTION
    return kept if place.resumed and kept.exists() else None


def _without_foreign_encoder(
    place: Workdir, config: TrainConfig, init: InitialWeights | None, said: list[str]
) -> InitialWeights | None:
    """Leaves out the text encoder of `config.init` if it does not know the words of the data, `said`."""
    theirs = init.instruction(config.instruction.name) if init else None
    if init is None or theirs is None or config.instruction.name != "tiny" or place.begun:
        return init
    if tiny.can_start_from(theirs, _kept_encoder(place), said):
        return init
    logging.info("the words of the data are new to config.init: its text encoder is trained anew")
    return init.without_encoder()


def _make_encoder(
    place: Workdir, config: TrainConfig, init: InitialWeights | None, said: list[str]
) -> Instruction:
    """The encoder of a resumed run or of `config.init`; else one that learns its words from `said`."""
    known = _kept_encoder(place) or (init.instruction(config.instruction.name) if init else None)
    encoder = factory.build(config.instruction, known or place.path / INSTRUCTION, [] if known else said)
    if known and isinstance(encoder.preparer, ClosedVocabulary):
        encoder.preparer.add_texts(said)
    warn_of_long_texts(encoder.preparer, said)
    if config.data.latents:
        need_same_instruction(config.data.latents, encoder, config.loop.num_eval_examples)
        if read_identity(config.data.latents).instruction:
            encoder = cached_instruction(config.data.latents, encoder)
    return encoder


def _keep(place: Workdir, networks: Networks) -> None:
    """Writes what belongs to the instruction encoder, of a new run, and what identifies the base."""
    if networks.instruction.save is not None and not _kept_encoder(place):
        networks.instruction.save(place.path / INSTRUCTION)
    if isinstance(networks.init, InitialWeights) and networks.config.model.lora_rank:
        keep_base(networks.init, networks.plan, place.path)


def train_vae(
    config: VAETrainConfig,
    workdir: str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    change: Sequence[str] = (),
) -> tuple[epath.Path, dict[str, float]]:
    """Trains a VAE in a directory; for the arguments see `train_genmask`.

    Returns:
        The directory, and the scores of the last validation.

    Raises:
        UserError: the directory, the config or the data cannot be used.
        SystemExit: see `loop.train`.
    """
    with StopRequests(UNTRAINED) as stop:
        place = check_workdir(workdir, config, resume=resume, overwrite=overwrite, change=change)
        for split in ("train", "val"):
            segment_source(config.data, split)
        if config.init:
            load_vae(config.init)
        mesh = make_mesh(config.mesh)
        check_batch(config.loop, mesh)
        task = VAETask(config, mesh, restored=place.begun)
        if place.overwrite:
            rehearse(task, config)
        make_workdir(place, config)
        state, scores = train(task, config, place.path, stop)
        stop.expect("stopped before the VAE was written; --resume writes it", at_once=True)
        save_vae(place.path, config.vae, task.finish(state.eval_params))
    return place.path, scores
