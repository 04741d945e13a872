"""Images with one or several mask files for each phrase; the masks of a phrase are united."""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from etils import epath

from genmask_jax.data import masks
from genmask_jax.data.raw_formats.black_and_white import level, read_pixels
from genmask_jax.data.raw_formats.class_maps import is_upright
from genmask_jax.data.raw_formats.pairs import Pair
from genmask_jax.data.raw_formats.plan import Expression, PlannedImage, Target
from genmask_jax.data.raw_formats.problems import Problems


def plan_masks(
    pair: Pair,
    files: Iterable[tuple[str, epath.Path]],
    captions: tuple[str, ...],
    ids: Iterator[int],
    threshold: float,
    problems: Problems,
    void: Iterable[epath.Path] = (),
) -> PlannedImage | None:
    """An image with a target for each phrase, in the order of the phrases; None without masks and captions.

    Args:
        pair: the image.
        files: (phrase, file of a black-and-white mask); the files of a phrase are united.
        captions: captions of the image.
        ids: provides ids of objects.
        threshold: level above which a pixel is in a mask (`black_and_white.threshold_of`).
        problems: receives masks that are left out.
        void: files with masks of ignored pixels.
    """
    drawn: dict[str | None, np.ndarray] = {}
    turned = True
    for text, path in (*files, *((None, path) for path in void)):
        try:
            mask: np.ndarray = level(read_pixels(path)[0]) > threshold
            turned = is_upright(pair.image, mask.shape)
        except ValueError as error:
            problems.add(str(error))
            continue
        if text is not None and not mask.any():
            problems.note(f"{path} is black; its mask is empty")
        if next(iter(drawn.values()), mask).shape != mask.shape:
            problems.add(f"{path} has another size than the first mask of {pair.image}")
            continue
        drawn[text] = drawn.get(text, False) | mask
    ignored = drawn.pop(None, None)
    named = {text: mask for text, mask in drawn.items() if text is not None}
    if not named and not captions:
        problems.add(f"{pair.image} has no usable mask")
        return None
    targets = [
        Target(i, tuple(itertools.islice(ids, 1)), (masks.encode(mask),)) if mask.any() else Target(i)
        for i, mask in enumerate(named.values())
    ]
    height, width = next((mask.shape for mask in named.values()), (0, 0))
    return PlannedImage(
        path=str(pair.image),
        image_id=pair.key,
        size=(height, width) if named else None,
        captions=captions,
        turned=turned,
        targets=tuple(targets),
        expressions=tuple(
            Expression(pair.key if i == 0 else f"{pair.key}#{i}", text, i) for i, text in enumerate(named)
        ),
        void=() if ignored is None or not named else (masks.encode(ignored),),
    )
