"""What the publishers say that their data sets hold, to compare with what was prepared.

RefCOCO's family: Yu et al. (2016), Mao et al. (2016), Nagaraja et al. (2016), as REFER's files count them;
gRefCOCO: Liu et al. (2023); ReasonSeg: Lai et al. (2024); captions: COCO's files of 2017.
"""

Counts = dict[str, int]


def _refs(images: int, refs: int, expressions: int | None = None) -> Counts:
    counts = {"images": images, "refs": refs, "expressions": expressions}
    return {name: count for name, count in counts.items() if count is not None}


PUBLISHED: dict[str, dict[str, Counts]] = {
    "refcoco/unc": {
        "train": _refs(16_994, 42_404, 120_624),
        "val": _refs(1_500, 3_811, 10_834),
        "testA": _refs(750, 1_975, 5_657),
        "testB": _refs(750, 1_810, 5_095),
    },
    "refcoco/google": {
        "train": _refs(19_213, 40_000),
        "val": _refs(4_559, 5_000),
        "test": _refs(4_527, 5_000),
    },
    "refcocoplus/unc": {
        "train": _refs(16_992, 42_278, 120_191),
        "val": _refs(1_500, 3_805, 10_758),
        "testA": _refs(750, 1_975, 5_726),
        "testB": _refs(750, 1_798, 4_889),
    },
    "refcocog/umd": {
        "train": _refs(21_899, 42_226, 80_512),
        "val": _refs(1_300, 2_573, 4_896),
        "test": _refs(2_600, 5_023, 9_602),
    },
    "refcocog/google": {"train": _refs(24_698, 44_822), "val": _refs(4_650, 5_000)},
    "grefcoco/unc": {
        "all": {
            "images": 19_994,
            "expressions": 278_232,
            "multi-target": 80_022,
            "no-target": 32_202,
            "objects": 60_287,
        }
    },
    "reasonseg": {"train": {"images": 239}, "val": {"images": 200}, "test": {"images": 779}},
    "coco_captions": {
        "train": {"images": 118_287, "captions": 591_753},
        "val": {"images": 5_000, "captions": 25_014},
    },
}
"""By data set and its way of splitting; "all" is over all splits."""
