"""Starts and resumes runs. All checks come first: nothing is deleted or written before they pass."""

from collections.abc import Callable, Sequence
from typing import Any

from absl import logging
from etils import epath

from genmask_jax.checkpoints.initial_weights import InitialWeights, open_base, open_weights, save_base
from genmask_jax.checkpoints.runs import load_vae, save_vae, vae_source
from genmask_jax.config import TrainConfig, VAETrainConfig
from genmask_jax.data.latents.cached_instruction import cached_instruction
from genmask_jax.data.latents.store import (
    fingerprint,
    need_matching_cache,
    need_matching_instruction,
    read_identity,
)
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
from genmask_jax.training.loop import check_batch, dry_run, train
from genmask_jax.training.state import TrainState
from genmask_jax.training.stopping import StopRequests
from genmask_jax.training.vae import VAETask
from genmask_jax.training.workdir import Workdir, check_workdir, make_workdir
from genmask_jax.utils import hosts
from genmask_jax.utils.digests import write_digests
from genmask_jax.utils.errors import UserError

BEFORE_TRAINING = "stopped before the first step; the same command with --resume continues"
INSTRUCTION = "instruction"
"""Subfolder of a run with the files of its instruction encoder."""


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
        config: config of the run.
        workdir, resume, overwrite, change: see `check_workdir`.
        profile: steps to trace.
        make_task: (networks, config) -> the task; tests replace it.

    Returns:
        The last state, and the scores of the last validation.

    Raises:
        UserError: the directory, the config, the data or the weights cannot be used.
        SystemExit: see `loop.train`.
    """
    with StopRequests(BEFORE_TRAINING) as stop:
        run = check_workdir(workdir, config, resume=resume, overwrite=overwrite, change=change)
        vae_config, vae_state = _load_vae(run, config)
        _check_data(config, vae_config, vae_state)
        init = _open_init(run, config)
        vocabulary = [] if _saved_encoder(run) else texts(config.data)
        init = _drop_incompatible_encoder(run, config, init, vocabulary)
        encoder = _make_encoder(run, config, init, vocabulary)
        mesh = make_mesh(config.mesh)
        check_batch(config, mesh)
        vae = vae_source(run.path if _has_vae(run) else config.vae)
        sources = Sources(vae=vae, init=init, restored=run.restored)
        networks = make_networks(config, vae_config, vae_state, encoder, mesh, sources)
        task = make_task(networks, config)
        if run.overwrite:
            dry_run(task, config)
        make_workdir(run, config)
        _save_frozen(run, networks, vae_state)
        return train(task, config, run.path, stop, profile)


def _has_vae(run: Workdir) -> bool:
    return run.resumed and (run.path / "vae" / "config.json").exists()


def _load_vae(run: Workdir, config: TrainConfig) -> tuple[VAEConfig, Any]:
    """The VAE to use: a resumed run's own copy, or the config's for a new run."""
    if not _has_vae(run):
        return load_vae(config.vae)
    own = load_vae(run.path)
    try:
        configured = load_vae(config.vae)
    except UserError:
        return own  # config.vae was deleted, and is not needed
    if fingerprint(*configured) != fingerprint(*own):
        logging.warning(
            "config.vae=%s is not the VAE that this run started with; it continues with its own, %s",
            config.vae,
            run.path / "vae",
        )
    return own


def _check_data(config: TrainConfig, vae_config: VAEConfig, vae_state: Any) -> None:
    """Raises UserError if the data cannot be used; logs how many of its texts allow mirrored images."""
    check_data(config.data)
    if config.data.latents:
        need_matching_cache(config.data, vae_config, vae_state)
    if config.data.augment.flip > 0:
        for kind, examples in texts_of_split(config.data).items():
            summary = report(examples, config.data.augment.flip_words)
            logging.info("%s from the start of the train split: %s", kind, summary)


def _open_init(run: Workdir, config: TrainConfig) -> InitialWeights | None:
    """The weights of `config.init`, if this process needs them: to start from, or as the base of adapters."""
    if config.model.lora_rank:
        return open_base(config, run.path if run.resumed else None)
    return open_weights(config.init) if config.init and not run.restored else None


def _drop_incompatible_encoder(
    run: Workdir, config: TrainConfig, init: InitialWeights | None, vocabulary: list[str]
) -> InitialWeights | None:
    """Drops the text encoder of `config.init` if it does not know the words of the data (`vocabulary`)."""
    encoder = init.instruction(config.instruction.name) if init else None
    if init is None or encoder is None or config.instruction.name != "tiny" or run.restored:
        return init
    if tiny.can_start_from(encoder, _saved_encoder(run), vocabulary):
        return init
    logging.info("the text encoder of config.init does not know the words of the data: a new one is trained")
    return init.without_encoder()


def _saved_encoder(run: Workdir) -> epath.Path | None:
    """The folder of a resumed run's instruction encoder, which keeps its tokenizer."""
    folder = run.path / INSTRUCTION
    return folder if run.resumed and folder.exists() else None


def _make_encoder(
    run: Workdir, config: TrainConfig, init: InitialWeights | None, vocabulary: list[str]
) -> Instruction:
    """The encoder of a resumed run or of `config.init`, or a new one that knows the words of `vocabulary`."""
    saved = _saved_encoder(run) or (init.instruction(config.instruction.name) if init else None)
    encoder = factory.build(config.instruction, saved or run.path / INSTRUCTION, [] if saved else vocabulary)
    if saved and isinstance(encoder.preparer, ClosedVocabulary):
        encoder.preparer.add_texts(vocabulary)
    warn_of_long_texts(encoder.preparer, vocabulary)
    if config.data.latents:
        need_matching_instruction(config.data.latents, encoder, config.loop.num_eval_examples)
        if read_identity(config.data.latents).instruction:
            encoder = cached_instruction(config.data.latents, encoder)
    return encoder


def _save_frozen(run: Workdir, networks: Networks, vae_state: Any) -> None:
    """Copies the VAE and the encoder's files into a new run, and records the base of its adapters."""
    if not _has_vae(run):
        save_vae(run.path, networks.vae_config, vae_state)
    if hosts.is_first():
        if networks.instruction.save is not None and not _saved_encoder(run):
            networks.instruction.save(run.path / INSTRUCTION)
            write_digests(run.path / INSTRUCTION)
        if isinstance(networks.init, InitialWeights) and networks.config.model.lora_rank:
            save_base(networks.init, networks.plan, run.path)
    hosts.wait("frozen networks saved")


def train_vae(
    config: VAETrainConfig,
    workdir: str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    change: Sequence[str] = (),
) -> tuple[epath.Path, dict[str, float]]:
    """Trains a VAE in a directory; see `train_genmask` for the arguments.

    Returns:
        The directory, and the scores of the last validation.

    Raises:
        UserError: the directory, the config or the data cannot be used.
        SystemExit: see `loop.train`.
    """
    with StopRequests(BEFORE_TRAINING) as stop:
        run = check_workdir(workdir, config, resume=resume, overwrite=overwrite, change=change)
        for split in ("train", "val"):
            segment_source(config.data, split)
        if config.init:
            load_vae(config.init)
        mesh = make_mesh(config.mesh)
        check_batch(config, mesh)
        task = VAETask(config, mesh, restored=run.restored)
        if run.overwrite:
            dry_run(task, config)
        make_workdir(run, config)
        state, scores = train(task, config, run.path, stop)
        stop.expect("stopped before the VAE was written; --resume writes it", at_once=True)
        save_vae(run.path, config.vae, task.finish(state.eval_params))
    return run.path, scores
