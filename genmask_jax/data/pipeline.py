"""Makes batches from sources with Grain: shuffle, repeat, preprocess, shard over hosts, batch.

A training batch has two parts of static shape, M rows of masks and G rows of images. They are halves, unless
`config.mixture` sets other shares:

    {"segment":  {"images" uint8 [M, H, W, 3], "masks" uint8 [M, H, W], "instruction": {...}},
     "generate": {"images" uint8 [G, H, W, 3],                          "instruction": {...}}}

If latents are cached (`config.latents`), "image_latents" and "mask_latents" float32 [., h, w, c] replace
images and masks. If instructions are cached too, "text_embeds" float32 [., K, D] and "text_mask" bool [., K]
replace the inputs of the encoder.

Without images (`config.generate="none"`), "segment" is the whole batch.

Each task is a `MapDataset` that is sharded over the hosts and batched; then the two are zipped. (If the
tasks were mixed before sharding, a host could get only one of them.) Everything is a function of index and
seed, and global batches do not depend on the number of hosts, so the iterator's position is its only state.
"""

import dataclasses
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import numpy as np

from genmask_jax.config import DataConfig
from genmask_jax.data.augment import AugmentGenerate, AugmentSegment
from genmask_jax.data.examples import FullSizeSource, Mixture, Source
from genmask_jax.data.latents.store import CachedLatents, cached_segments
from genmask_jax.data.sources import generate_source, generates, rows_by_task, segment_source
from genmask_jax.instruction.base import Preparer
from genmask_jax.utils.errors import UserError, first_line
from genmask_jax.utils.workers import end_with_parent


@dataclasses.dataclass(frozen=True)
class PrepareSegment:
    """Turns a SegmentExample (or a LatentExample) into the arrays of one row of the batch."""

    preparer: Preparer

    def __call__(self, example: Any) -> dict[str, Any]:
        instruction = _cached(example, "text") or self.preparer(example["text"], example.get("image"))
        return {**_arrays(example), "instruction": instruction}


@dataclasses.dataclass(frozen=True)
class PrepareGenerate(grain.transforms.RandomMap):
    """Turns a GenerateExample into a row of the batch; drops its prompt with probability `dropout`."""

    preparer: Preparer
    dropout: float

    def random_map(self, example: Any, rng: np.random.Generator) -> dict[str, Any]:
        name = "null" if rng.random() < self.dropout else "text"
        text = {"null": "", "text": example["text"]}[name]
        instruction = _cached(example, name) or self.preparer(text, None)
        return {**_arrays(example), "instruction": instruction}


BATCH_KEYS = {
    "image": "images",
    "mask": "masks",
    "image_latents": "image_latents",
    "mask_latents": "mask_latents",
}
"""Keys of arrays in a batch, by their keys in an example."""


def _cached(example: Any, name: str) -> dict[str, np.ndarray] | None:
    """Cached embeddings of the text, or of the empty text ("null"); None without a cache."""
    if "text_embeds" not in example:
        return None
    return {"text_embeds": example[f"{name}_embeds"], "text_mask": example[f"{name}_mask"]}


def _arrays(example: Any) -> dict[str, np.ndarray]:
    return {name: example[key] for key, name in BATCH_KEYS.items() if key in example}


MAX_BATCHES = 2**40
"""Length of an endless dataset, in batches: the same for both tasks, as Grain requires."""


class HostRows(grain.MapDataset):
    """This host's rows of every batch of an endless dataset.

    All hosts together read the same rows as a single host.
    """

    def __init__(self, parent: grain.MapDataset, rows: int, part: tuple[int, int]):
        """`rows`: rows per batch on this host; `part`: the host's `part_of_batch`."""
        super().__init__(parent)
        self.rows, (self.index, self.count) = rows, part

    def __len__(self) -> int:
        return self.rows * MAX_BATCHES

    def __getitem__(self, position: int) -> Any:
        batch, row = divmod(position, self.rows)
        return self._parent[(batch * self.count + self.index) * self.rows + row]


def endless(source: Source[Any], seed: int) -> grain.MapDataset:
    """Repeats a source forever, reshuffled every epoch; samples the parts of a mixture by weight."""
    if isinstance(source, Mixture):
        # Distinct seeds: no two parts, nor the two tasks of a batch, share an order.
        parts = [endless(part, seed + 1000 * (i + 1)) for i, part in enumerate(source.parts)]
        return grain.MapDataset.mix(parts, source.weights)
    return grain.MapDataset.source(source).seed(seed).shuffle().repeat()


class Batches(Iterator[Any]):
    """An endless iterator over batches that can be moved to any position.

    Its state is the number of drawn batches, so a run may resume with another number of workers or hosts.
    """

    def __init__(
        self, dataset: grain.MapDataset, tasks: Mapping[str, tuple[grain.MapDataset, int]], num_workers: int
    ):
        """A position at the first batch.

        Args:
            dataset: this host's batches.
            tasks: by name, the examples of all hosts, and their number in a batch.
            num_workers: processes that prepare batches; 0 for threads of this process.
        """
        self._dataset, self._tasks, self._num_workers = dataset, tasks, num_workers
        self._position = 0
        self._iterator: grain.DatasetIterator | None = None

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = self._start()
        batch = next(self._iterator)
        self._position += 1
        return batch

    def _start(self) -> grain.DatasetIterator:
        """Grain's iterator from the position on; earlier examples are not read."""
        read = grain.ReadOptions(num_threads=1 if self._num_workers else 2, prefetch_buffer_size=4)
        iterable = self._dataset.slice(slice(self._position, None)).to_iter_dataset(read)
        if self._num_workers:
            options = grain.MultiprocessingOptions(num_workers=self._num_workers)
            iterable = iterable.mp_prefetch(options, worker_init_fn=_init_worker)
        return iter(iterable)

    def examples(self, index: int) -> dict[str, list[dict[str, str]]]:
        """The "id" and "text" of each example of a batch, of all hosts, by task; cached latents have no id.

        The examples are read again.
        """
        return {
            name: [_id_and_text(dataset[index * rows + row]) for row in range(rows)]
            for name, (dataset, rows) in self._tasks.items()
        }

    def get_state(self) -> dict[str, int]:
        """The position as JSON, for `set_state`."""
        return {"batches": self._position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to a position. Raises UserError if `state` is not a position."""
        self.close()
        self._position = _batches_drawn(state)

    def close(self) -> None:
        """Ends the processes and threads that prepare batches; the next batch restarts them."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


def _id_and_text(example: Any) -> dict[str, str]:
    return {key: example[key] for key in ("id", "text") if key in example}


def _init_worker(index: int, count: int) -> None:
    """Ignores SIGTERM in a worker: the parent handles it, and needs its workers to finish the step."""
    del index, count
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # schedulers send it to all processes of a job
    end_with_parent()


def _batches_drawn(state: dict[str, Any]) -> int:
    """The position in a checkpoint; older checkpoints have the state of Grain's iterator or workers."""
    if "batches" in state:
        return state["batches"]
    workers = state.get("iterators_in_use_states", [state])
    try:
        return sum(worker["next_index"] for worker in workers)
    except (KeyError, TypeError) as error:
        raise UserError("the checkpoint has no position in the data; start a new run") from error


def training_batches(
    config: DataConfig,
    preparer: Preparer,
    *,
    batch_size: int,
    part: tuple[int, int],
    condition_dropout: float,
    seed: int,
) -> Batches:
    """An endless, resumable iterator over this host's batches.

    Args:
        config: the dataset.
        preparer: preparer of the instruction encoder.
        batch_size: global batch size of both tasks together.
        part: this host's part of every batch, from `part_of_batch`.
        condition_dropout: probability of replacing a generation prompt by the empty prompt.
        seed: seed of shuffling and dropout.
    """
    images: grain.MapDataset | None = None
    if config.latents:
        segments = endless(cached_segments(config), seed)
        images = endless(CachedLatents(config.latents, "generate"), seed + 1)
    else:
        segments = _segments(config, seed)
        if generates(config):
            source = generate_source(config, "train")
            images = endless(FullSizeSource(source) if config.varies else source, seed + 1)
            images = images.random_map(AugmentGenerate(config)) if config.varies else images
    return batches_of(
        segments,
        images,
        preparer,
        rows=rows_by_task(config, batch_size),
        part=part,
        condition_dropout=condition_dropout,
        num_workers=config.num_workers,
    )


def _segments(config: DataConfig, seed: int, *, with_text: bool = True) -> grain.MapDataset:
    """Endless examples with masks, augmented if the config says so (`AugmentSegment`)."""
    source = segment_source(config, "train")
    if not config.varies:
        return endless(source, seed)
    full_size: Source[Any] = FullSizeSource(source)
    if isinstance(source, Mixture):
        full_size = Mixture([FullSizeSource(part) for part in source.parts], source.weights)
    return endless(full_size, seed).random_map(AugmentSegment(config, with_text))


def batches_of(
    segments: grain.MapDataset,
    images: grain.MapDataset | None,
    preparer: Preparer,
    *,
    rows: Mapping[str, int],
    part: tuple[int, int],
    condition_dropout: float,
    num_workers: int,
) -> Batches:
    """Like `training_batches`, for `endless` datasets of both tasks and their numbers of `rows_by_task`.

    `images` may be None if there are no rows of images.
    """
    examples = {"segment": (segments, rows["segment"])}
    tasks = {"segment": segments.map(PrepareSegment(preparer))}
    if images is not None:
        examples["generate"] = images, rows["generate"]
        tasks["generate"] = images.random_map(PrepareGenerate(preparer, condition_dropout))
    parts = []
    for name, task in tasks.items():
        own = rows[name] // part[1]
        # Without drop_remainder, Grain overflows on the length of an endless dataset at batch size 1.
        parts.append(HostRows(task, own, part).batch(own, drop_remainder=True))
    zipped = grain.experimental.ZipMapDataset(parts).map(_NameTasks(tuple(tasks)))
    return Batches(zipped, examples, num_workers)


@dataclasses.dataclass(frozen=True)
class _NameTasks:
    names: tuple[str, ...]

    def __call__(self, parts: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(self.names, parts, strict=True))


def image_batches(config: DataConfig, *, batch_size: int, part: tuple[int, int], seed: int) -> Batches:
    """Like `training_batches`, for a VAE: {"images" uint8 [B/2, H, W, 3], "masks" uint8 [B/2, H, W]}."""
    half = batch_size // 2 // part[1]
    segments = _segments(config, seed, with_text=False)
    dataset = HostRows(segments.map(_image_and_mask), half, part).batch(half, drop_remainder=True)
    return Batches(dataset, {"segment": (segments, batch_size // 2)}, config.num_workers)


def _image_and_mask(example: Any) -> dict[str, np.ndarray]:
    return {"images": example["image"], "masks": example["mask"]}


def draw(batches: Iterator[Any]) -> Any:
    """The next batch. Raises UserError if a worker process was killed, for example without free memory."""
    try:
        return next(batches)
    except RuntimeError as error:
        if "Worker process" not in str(error):
            raise
        raise UserError(
            "a process that prepares batches was killed (out of memory?); continue with --resume and fewer "
            f"config.data.num_workers ({first_line(error)})"
        ) from error
