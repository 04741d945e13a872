"""Properties of readers, for inputs that hypothesis makes and shrinks."""

import json

import numpy as np
import pytest
from etils import epath
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from genmask_jax.data import masks
from genmask_jax.data.raw_formats.class_files import read_rows
from genmask_jax.data.raw_formats.coco import CocoFile
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.tools.demo.limits import MAX_CHARACTERS, MAX_PHRASES, read_phrases
from genmask_jax.utils.errors import MAX_LENGTH, UserError, one_line

FEW = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=8), inside, max_size=4),
    max_leaves=12,
)


@FEW
@given(SIZES.flatmap(lambda size: arrays(np.uint8, size, elements=st.integers(0, 1))))
def test_run_lengths_come_back(mask):
    counts = masks.encode(mask)
    masks.need_valid(counts, mask.shape)
    np.testing.assert_array_equal(masks.decode(counts, mask.shape), mask > 0)
    assert masks.from_rle({"size": list(mask.shape), "counts": counts}, mask.shape) == counts


@FEW
@given(JSON, SIZES)
def test_any_segmentation_is_a_mask_or_refused(segmentation, size):
    try:
        usable, _ = masks.usable(segmentation, size)
    except ValueError:
        return
    assert masks.area(masks.from_coco(usable, size), size) > 0


@FEW
@given(st.lists(st.lists(st.floats(-50, 50), min_size=6, max_size=12), min_size=1, max_size=3), SIZES)
def test_any_polygons_are_a_mask_or_refused(polygons, size):
    try:
        usable, complaints = masks.usable(polygons, size)
    except ValueError:
        return
    assert len(usable) + len(complaints) == len(polygons)
    masks.need_valid(masks.from_coco(usable, size), size)


@FEW
@given(
    text=st.text(st.characters(codec="utf-8")),
    name=st.sampled_from(["classes.txt", "data.yaml", "names.json"]),
)
def test_any_text_is_a_class_list_or_refused(text, name, tmp_path):
    path = epath.Path(tmp_path / name)
    path.write_text(text)
    try:
        rows = read_rows(path)
    except UserError as error:
        assert name in str(error)  # noqa: PT017 (it may be read too)
    else:
        assert all(isinstance(row.name, str) for row in rows)


@FEW
@given(images=JSON, annotations=JSON, categories=JSON)
def test_any_coco_file_is_read_or_named(images, annotations, categories, tmp_path):
    path = epath.Path(tmp_path / "a.json")
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    problems = Problems()
    try:
        coco = CocoFile(path, problems)
    except UserError as error:
        assert "a.json" in str(error)  # noqa: PT017 (it may be read too)
        return
    assert len(coco.images) == len(images) or problems.left_out or problems.notes
    assert all(annotation["image_id"] in coco.images for annotation in coco.annotations)


@FEW
@given(JSON)
def test_any_phrases_are_few_and_short_or_refused(text):
    try:
        phrases = read_phrases(text)
    except UserError:
        return
    assert 0 < len(phrases) <= MAX_PHRASES
    assert all(0 < len(phrase) <= MAX_CHARACTERS for phrase in phrases)


@FEW
@given(st.text(st.characters(), max_size=100))
def test_messages_are_one_printable_line(text):
    assert len((one_line(text) + "x").splitlines()) == 1
    one_line(text).encode()


@pytest.mark.parametrize("length", [MAX_LENGTH, MAX_LENGTH + 1, 10**6])
def test_messages_are_short_and_keep_their_end(length):
    message = str(UserError("x" * length + "the fix"))
    assert len(message) <= MAX_LENGTH
    assert message.endswith("the fix")
