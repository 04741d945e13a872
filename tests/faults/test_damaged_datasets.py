"""Files of a prepared dataset are damaged: its examples are read unchanged, or the damaged file is named."""

import collections
import pathlib

import pytest
from etils import epath

from genmask_jax.data.prepared import records
from genmask_jax.data.prepared.prepare import prepare
from genmask_jax.utils.digests import DIGESTS
from genmask_jax.utils.errors import UserError
from tests.faults.damage import Fault, a_fault_of_each, faults_of
from tests.raw_trees import folder_tree


@pytest.fixture
def dataset(tmp_path) -> pathlib.Path:
    folder_tree(tmp_path / "raw", 12)
    prepare("image_folder", epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "out"), num_workers=1)
    return pathlib.Path(records.find(tmp_path / "out", "image_folder"))


def examples(directory: pathlib.Path) -> list[str]:
    """All that is read of a dataset."""
    records.open_split.cache_clear()
    found = []
    for split in records.splits_of(directory):
        for kind in records.ITEM_KINDS:
            items = records.Items(str(directory), split, kind)
            found += [repr(items[i]) for i in range(len(items))]
    return [*found, str(records.read_classes(directory))]


def outcome(directory: pathlib.Path, fault: Fault, expected: list[str]) -> str:
    """What reading a damaged dataset does; undoes the damage.

    Returns: "found", "not named" (found, but not the file), "no matter" or "silently wrong".
    """
    whole = (directory / fault.path).read_bytes()
    fault.apply(directory)
    try:
        return "no matter" if examples(directory) == expected else "silently wrong"
    except UserError as error:
        named = str(directory / fault.path) in str(error) or fault.path.name == DIGESTS
        return "found" if named else "not named"
    finally:
        (directory / fault.path).write_bytes(whole)


def test_a_damaged_dataset_is_refused_or_read_unchanged(dataset):
    expected = examples(dataset)
    found = {fault.path.name: outcome(dataset, fault, expected) for fault in a_fault_of_each(dataset)}
    assert not {"silently wrong", "not named"}.intersection(found.values())
    assert all(result == "found" for name, result in found.items() if name.endswith(".json"))


@pytest.mark.slow
def test_every_region_of_a_dataset(dataset):
    expected = examples(dataset)
    counts = collections.Counter()
    for fault in faults_of(dataset, flips=64, cuts=8):
        kind = "records" if "array_record" in fault.path.name else fault.path.suffix
        counts[kind, fault.kind, outcome(dataset, fault, expected)] += 1
    print(f"\n{dict(counts)}")
    assert not any(result in ("silently wrong", "not named") for *_, result in counts)
