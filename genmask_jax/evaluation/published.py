"""Published rows of the tables, in per cent, as their papers print them."""

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
"""By model and benchmark (oIoU), or benchmark and metric. Source: the tables of GenMask (2603.23906)."""
