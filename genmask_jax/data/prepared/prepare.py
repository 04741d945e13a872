"""Prepares datasets from raw data: shard by shard on the cores of this machine, or on a cluster with Beam.

    OUT/refcoco/unc/1.0.0                 TFDS's layout: ArrayRecord shards, dataset_info.json, features.json,
                                          plus an index of each split, problems.txt (entries left out) and
                                          notes.txt (unusual entries that are kept)
    OUT/refcoco/unc/1.0.0.incomplete      work in progress; finished shards are kept

A shard's bytes depend only on the raw data, and a shard gets its final name once it is complete.
"""

import concurrent.futures
import multiprocessing
import os
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath
from rich import box
from rich.table import Table
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.splits import SplitDict
from tqdm import tqdm

from genmask_jax.data.prepared.builders import FEATURES, ImagesBuilder, open_builders
from genmask_jax.data.prepared.records import (
    COUNT_NAMES,
    Index,
    Items,
    decode_image,
    read_expression,
    read_index,
    splits_of,
    write_classes,
    write_index,
    write_json_digests,
)
from genmask_jax.data.published import PAPER_COUNTS, PUBLISHED_COUNTS
from genmask_jax.data.raw_formats.plan import Plan, PlannedImage
from genmask_jax.utils.console import console
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import listed, replacing, write_text
from genmask_jax.utils.sheets import generation_sheet, overlay
from genmask_jax.utils.workers import end_with_parent

IMAGES_PER_SHARD = 256
PROBLEMS, NOTES = "problems.txt", "notes.txt"
FINGERPRINT = "plan.sha256"
"""File with the fingerprint of the plan of an incomplete dataset."""
MAX_PRINTED = 20
"""Number of problems, and of notes, that are printed; the files have all of them."""
MAX_ON_SHEET = 24
"""Number of examples on the contact sheet."""


def prepare(
    name: str,
    raw: epath.Path,
    out: epath.Path,
    *,
    strict: bool = False,
    num_workers: int | None = None,
    beam: str | None = None,
    format: str = "",
) -> None:
    """Makes a dataset in every way in which the raw folder splits it, and prints a report.

    Args:
        name: a key of `builders.BUILDERS`.
        raw: folder of the publisher's files.
        out: data directory; complete datasets in it are kept.
        strict: stop at the first problem in the raw data instead of leaving it out.
        num_workers: number of processes; 1 uses this process, None one per core.
        beam: options of a Beam pipeline, such as "--runner=DataflowRunner"; None to use this machine.
        format: layout of an image_folder, a key of `folder.FORMATS`; "" to recognise it.

    Raises:
        UserError: the raw files are missing or invalid, or `out` has other content.
    """
    for builder in open_builders(name, raw, out, format):
        directory = epath.Path(builder.data_path)
        if is_complete(directory):
            print(f"{directory} is already prepared; nothing done (delete it to make it again)")
        else:
            plan = builder.plan(raw)
            if strict:
                _need_no_problems(plan.problems.left_out)
            if (directory / "dataset_info.json").exists():  # made by TFDS itself
                _finish(directory, plan)
            elif beam is not None:
                _prepare_on_beam(builder, raw, beam)
                _finish(directory, plan)
            else:
                try:
                    _prepare_locally(builder, plan, strict, num_workers or os.cpu_count() or 1)
                except (OSError, RuntimeError) as error:  # ArrayRecord's writer raises the latter
                    raise UserError(f"--out={out}: {error}; rerun the command to continue") from error
        report(builder, directory)
        if strict:
            _need_no_problems((directory / PROBLEMS).read_text().splitlines())


def is_complete(directory: epath.Path) -> bool:
    """Whether the directory has a complete dataset."""
    return (directory / PROBLEMS).exists()


def _need_no_problems(problems: list[str]) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"--strict: {problems[0]}{more}")


def _prepare_on_beam(builder: ImagesBuilder, raw: epath.Path, flags: str) -> None:
    """Runs TFDS's own Beam pipeline, on a cluster."""
    try:
        options = shlex.split(flags)
    except ValueError as error:
        raise UserError(f"--beam={flags}: {error}") from error
    try:
        # Beam needs a separate environment (requirements-beam.txt).
        from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
            PipelineOptions,
        )
    except ImportError as error:
        raise UserError("--beam needs Apache Beam: pip install -r requirements-beam.txt") from error
    builder.uses_beam = True
    download = tfds.download.DownloadConfig(
        manual_dir=str(raw), beam_options=PipelineOptions(options), try_download_gcs=False
    )
    builder.download_and_prepare(download_config=download)


def _prepare_locally(builder: ImagesBuilder, plan: Plan, strict: bool, num_workers: int) -> None:
    """Writes shards in worker processes, into a directory that gets its final name at the end."""
    final = epath.Path(builder.data_path)
    if final.exists():
        raise UserError(f"{final} is not a complete dataset; delete it")
    work = final.with_name(f"{final.name}.incomplete")
    _claim(work, plan)
    templates = {split: _template(builder, work, split) for split in plan.splits}
    shards = {split: list(_shards(templates[split], images)) for split, images in plan.splits.items()}
    _write_shards([shard for split in shards.values() for shard in split], strict, num_workers)
    infos = []
    for split, files in shards.items():
        paths = [path for path, _ in files]
        lengths = [ArrayRecordReader(str(path)).num_records() for path in paths]
        if not any(lengths):
            continue  # no image of the split is valid; `_finish` reports why
        size = sum(path.stat().length for path in paths)
        template = templates[split]
        infos.append(
            tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)
        )
    if not infos:
        raise UserError(f"none of the {sum(map(len, plan.splits.values()))} images in the raw data is valid")
    builder.info.set_splits(SplitDict(infos))
    builder.info.write_to_directory(work)
    _finish(work, plan)
    work.rename(final)


def _claim(work: epath.Path, plan: Plan) -> None:
    """Makes the directory, or checks that it belongs to the same plan. Raises UserError."""
    path, fingerprint = work / FINGERPRINT, plan.fingerprint()
    work.mkdir(parents=True, exist_ok=True)
    for leftover in work.iterdir():
        if leftover.name.endswith(".tmp"):  # an unfinished file
            leftover.unlink()
    if not listed(work):
        write_text(path, fingerprint)
    elif not path.exists() or path.read_text() != fingerprint:
        raise UserError(f"{work} was started with other raw data; delete it")


def _template(builder: ImagesBuilder, folder: epath.Path, split: str) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=builder.name, split=split, filetype_suffix="array_record"
    )


Shard = tuple[epath.Path, list[PlannedImage]]


def _shards(template: tfds.core.ShardedFileTemplate, images: list[PlannedImage]) -> Iterator[Shard]:
    """Yields each file with the images that belong in it."""
    parts = [images[i : i + IMAGES_PER_SHARD] for i in range(0, len(images), IMAGES_PER_SHARD)]
    return zip(template.sharded_filepaths(num_shards=len(parts)), parts, strict=True)


def _write_shards(shards: list[Shard], strict: bool, num_workers: int) -> None:
    """Writes all shards that do not exist yet, with a progress bar."""
    missing = [(path, images) for path, images in shards if not path.exists()]
    total = sum(len(images) for _, images in shards)
    complete = total - sum(len(images) for _, images in missing)
    with tqdm(total=total, initial=complete, unit=" images") as bar:
        if num_workers == 1 or len(missing) < 2:
            for path, images in missing:
                bar.update(write_shard(str(path), images, strict))
        else:
            _write_in_processes(missing, strict, min(num_workers, len(missing)), bar)


def _write_in_processes(shards: list[Shard], strict: bool, num_workers: int, bar: tqdm) -> None:
    context = multiprocessing.get_context("spawn")  # this process has threads
    workers = concurrent.futures.ProcessPoolExecutor(num_workers, context, initializer=end_with_parent)
    try:
        futures = [workers.submit(write_shard, str(path), images, strict) for path, images in shards]
        for future in concurrent.futures.as_completed(futures):
            bar.update(future.result())
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed (out of memory?); rerun the command to continue, with fewer "
            "--num_workers if necessary"
        ) from error
    finally:
        workers.shutdown(cancel_futures=True)


def write_shard(path: str, images: list[PlannedImage], strict: bool) -> int:
    """Writes the records of one file and returns how many images were processed.

    Raises:
        UserError: `strict` is set and an image is invalid.
    """
    features: Any = tfds.features.FeaturesDict(FEATURES)
    serializer = ExampleSerializer(features.get_serialized_info())
    with replacing(path) as temporary:
        writer = ArrayRecordWriter(str(temporary), "group_size:1")  # for random access
        for image in images:
            try:
                example = image.example()
            except ValueError as error:
                if strict:
                    raise UserError(f"--strict: {error}") from error
                continue
            encoded = serializer.get_tf_example(features.encode_example(example))
            writer.write(encoded.SerializeToString(deterministic=True))
        writer.close()
    return len(images)


def _finish(directory: epath.Path, plan: Plan) -> None:
    """Reads the dataset back and writes its index; lists missing images and the reasons."""
    problems, written = plan.problems.left_out, splits_of(directory)
    for split, images in plan.splits.items():
        prepared = set(write_index(directory, split).image_ids) if split in written else set()
        problems += [_explain(image) for image in images if image.image_id not in prepared]
    write_sheet(directory)
    write_classes(directory, plan.classes)
    write_json_digests(directory)
    write_text(directory / NOTES, "".join(f"{note}\n" for note in plan.problems.notes))
    write_text(directory / PROBLEMS, "".join(f"{problem}\n" for problem in problems))  # marks it as complete


def write_sheet(directory: epath.Path) -> None:
    """Draws some images of the first split with their texts, grey outside the mask."""
    split = splits_of(directory)[0]
    index = read_index(directory, split)
    kind = "expressions" if index.counts["expressions"] else "captions"
    items = Items(str(directory), split, kind)
    images, texts = [], []
    for i in spread(len(items)):
        record, number = items[i]
        image = decode_image(record)
        if kind == "expressions":
            expression = read_expression(record, number)
            images.append(overlay(image, expression.mask == 1))
            texts.append(expression.text)
        else:
            images.append(image)
            texts.append(record["captions"][number].decode())
    generation_sheet(images, texts, directory / "examples.png")


def spread(count: int) -> range:
    """At most MAX_ON_SHEET of `count` indices, evenly spread."""
    return range(0, count, max(1, count // MAX_ON_SHEET))[:MAX_ON_SHEET]


def _explain(image: PlannedImage) -> str:
    try:
        image.example()
    except ValueError as error:
        return str(error)
    return f"{image.path} could not be read before, but can now; delete the dataset and prepare it again"


def report(builder: ImagesBuilder, directory: epath.Path) -> None:
    """Prints a dataset's counts, the comparison with published counts, and the entries left out."""
    name = "/".join(filter(None, (builder.name, builder.builder_config and builder.builder_config.name)))
    indices = {split: read_index(directory, split) for split in splits_of(directory)}
    published = PUBLISHED_COUNTS.get(name, {})
    rows = {split: index.counts for split, index in indices.items()}
    for split in published:
        rows.setdefault(split, dict.fromkeys(COUNT_NAMES, 0))
    verdicts = {split: _compare(rows[split], counts) for split, counts in published.items()}
    if name in PAPER_COUNTS:
        rows |= {"all": _total(indices.values()), "all, in the paper": PAPER_COUNTS[name]}
        verdicts |= {"all": "", "all, in the paper": "not all of the paper's data was released"}
    columns = [column for column in COUNT_NAMES if any(counts.get(column) for counts in rows.values())]
    table = Table(title=f"{directory}", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("split", *columns, "published"):
        table.add_column(column, justify="left" if column in ("split", "published") else "right")
    for split, counts in rows.items():
        cells = (f"{counts[column]:,}" if column in counts else "" for column in columns)
        table.add_row(split, *cells, verdicts.get(split, "no figures"))
    console().print(table)
    _print_lines(directory / NOTES, "kept", "unusual items were kept")
    if not _print_lines(directory / PROBLEMS, "left out", "items were left out"):
        print("nothing was left out")


def _print_lines(path: epath.Path, label: str, summary: str) -> int:
    """Prints the first lines of a file, if there is one, and returns the number of lines."""
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines[:MAX_PRINTED]:
        print(f"{label}: {line}")
    if lines:
        print(f"{len(lines)} {summary}; the full list is in {path}")
    return len(lines)


def _total(indices: Iterable[Index]) -> dict[str, int]:
    """Totals over splits without common images."""
    indices = list(indices)
    return {column: sum(index.counts[column] for index in indices) for column in COUNT_NAMES}


def _compare(counts: dict[str, int], published: dict[str, int]) -> str:
    """ "exact match", or the differences."""
    differences = {name: counts[name] - count for name, count in published.items() if counts[name] != count}
    lines = (f"{abs(n):,} {name} {'missing' if n < 0 else 'too many'}" for name, n in differences.items())
    return ", ".join(lines) or "exact match"
