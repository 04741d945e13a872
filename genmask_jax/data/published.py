"""Published sizes of the datasets, to check prepared ones against, and published results.

RefCOCO's family: Yu et al. (2016), Mao et al. (2016), Nagaraja et al. (2016), as counted in REFER's files;
gRefCOCO: its released file, and Liu et al. (2023); ReasonSeg: Lai et al. (2024); captions: COCO's files of
2017.
"""

Counts = dict[str, int]


def _refs(images: int, refs: int, expressions: int | None = None) -> Counts:
    counts = {"images": images, "refs": refs, "expressions": expressions}
    return {name: count for name, count in counts.items() if count is not None}


PUBLISHED_COUNTS: dict[str, dict[str, Counts]] = {
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
        "train": {"images": 16_994, "expressions": 209_344},
        "val": {"images": 1_500, "expressions": 16_870},
        "testA": {"images": 750, "expressions": 18_712},
        "testB": {"images": 750, "expressions": 14_933},
    },
    "reasonseg": {"train": {"images": 239}, "val": {"images": 200}, "test": {"images": 779}},
    "coco_captions": {
        "train": {"images": 118_287, "captions": 591_753},
        "val": {"images": 5_000, "captions": 25_014},
    },
}
"""Counts of the released files, by dataset and its way of splitting, and by split."""

PAPER_COUNTS: dict[str, Counts] = {
    "grefcoco/unc": {
        "images": 19_994,
        "expressions": 278_232,
        "multi-target": 80_022,
        "no-target": 32_202,
        "objects": 60_287,
    }
}
"""Totals in the paper, if they differ from the release: 259,859 of gRefCOCO's expressions are released."""


RESULTS: dict[str, dict[str, float]] = {
    "LISA-7B (ft)": {
        "refcoco:unc:testA": 79.1,
        "refcoco:unc:testB": 72.3,
        "refcocoplus:unc:testA": 70.8,
        "refcocoplus:unc:testB": 58.1,
        "refcocog:umd:val": 67.9,
        "refcocog:umd:test": 70.6,
        "reasonseg:val:gIoU": 52.9,
        "reasonseg:val:cIoU": 54.0,
        "reasonseg:test:gIoU": 47.3,
        "reasonseg:test:cIoU": 48.4,
    },
    "GLaMM": {
        "refcoco:unc:testA": 83.2,
        "refcoco:unc:testB": 76.9,
        "refcocoplus:unc:testA": 78.7,
        "refcocoplus:unc:testB": 64.6,
        "refcocog:umd:val": 74.2,
        "refcocog:umd:test": 74.9,
    },
    "GenMask": {
        "refcoco:unc:testA": 83.3,
        "refcoco:unc:testB": 79.4,
        "refcocoplus:unc:testA": 78.7,
        "refcocoplus:unc:testB": 68.1,
        "refcocog:umd:val": 75.6,
        "refcocog:umd:test": 76.5,
        "reasonseg:val:gIoU": 51.1,
        "reasonseg:val:cIoU": 50.9,
        "reasonseg:test:gIoU": 52.3,
        "reasonseg:test:cIoU": 45.8,
    },
}
"""Scores in per cent, by model and benchmark (oIoU) or benchmark and metric.

Source: the tables of GenMask (2603.23906).
"""
