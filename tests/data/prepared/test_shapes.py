"""ReasonSeg's painting against the rule, spelled out step by step."""

import cv2
import numpy as np

from genmask_jax.data.raw_formats import shapes


def reference(annotation, size):
    """Every shape on its own, then the largest first, each over those before it."""
    layers = []
    for shape in annotation:
        if shape["label"].lower() == "flag":
            continue
        points = np.array([[int(x), int(y)] for x, y in shape["points"]], np.int32)  # towards zero
        layer = np.zeros(size, np.uint8)
        cv2.polylines(layer, [points], isClosed=True, color=1, thickness=1)
        cv2.fillPoly(layer, [points], color=1)
        layers.append((layer.sum(), 255 if "ignore" in shape["label"].lower() else 1, layer > 0))
    mask = np.zeros(size, np.uint8)
    for _, value, layer in sorted(layers, key=lambda x: -int(x[0])):
        mask[layer] = value
    return mask


def test_shapes_are_painted_as_the_rule_says():
    rng = np.random.default_rng(0)
    labels = ("target", "Ignored", "to IGNORE", "flag", "Flag", "the dog")
    seen = set()
    for _ in range(200):
        size = tuple(rng.integers(20, 90, 2).tolist())
        annotation = [
            {
                "label": labels[rng.integers(len(labels))],
                "points": rng.uniform(-9, 99, (rng.integers(3, 9), 2)).tolist(),
            }
            for _ in range(rng.integers(1, 7))
        ]
        kept, complaints = shapes.usable(annotation, None)
        assert not complaints
        mask = shapes.paint(kept, size)
        assert (mask == reference(annotation, size)).all()
        seen |= set(np.unique(mask).tolist())
    assert seen == {0, 1, 255}


def test_a_small_shape_lies_over_a_large_one_in_whatever_order_they_come():
    large = {"label": "target", "points": [[0, 0], [50, 0], [50, 50], [0, 50]]}
    small = {"label": "ignore this", "points": [[10, 10], [20, 10], [20, 20], [10, 20]]}
    for annotation in ([large, small], [small, large]):
        mask = shapes.paint(shapes.usable(annotation, (60, 60))[0], (60, 60))
        assert mask[15, 15] == 255
        assert mask[30, 30] == 1
        assert mask[55, 55] == 0


def test_shapes_that_cannot_be_painted_are_named():
    good = [[0, 0], [5, 0], [5, 5]]
    annotation = [
        {"label": "a", "points": good},
        {"label": "b", "points": good[:2]},
        {"label": "c", "points": "abc"},
        {"label": "d", "points": [[1, 2, 3]] * 3},
        {"label": "e", "points": [[0, 0], [float("inf"), 0], [1, 1]]},
        {"points": good},
        {"label": "FLAG"},
        {"label": "f", "points": [[0, 0], [1e9, 0], [1, 1]]},
        "no shape",
    ]
    kept, complaints = shapes.usable(annotation, None)
    assert [label for label, _ in kept] == ["a"]
    assert [complaint.split()[1] for complaint in complaints] == list("1234578")
    assert "2 points" in complaints[0]
    assert shapes.usable([], None) == ((), [])
