"""Valid inputs that `fuzz.py` damages: images of all formats, annotations of all layouts, class lists."""

import base64
import functools
import io
import json
from typing import Any

import numpy as np
from PIL import Image, features

from genmask_jax.data import masks

SIZE = (12, 16)
"""Height and width of the images."""
PIXELS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
MASK = np.zeros(SIZE, np.uint8)
MASK[3:8, 4:11] = 1
SQUARE = [4, 3, 11, 3, 11, 8, 4, 8]
SHAPE = [[4, 3], [11, 3], [11, 8], [4, 8]]


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@functools.cache
def images() -> dict[str, bytes]:
    """Files of the formats and modes that Pillow reads, by name."""
    rgb, exif = Image.fromarray(PIXELS), Image.Exif()
    exif[0x0112] = 6
    rgba = Image.fromarray(np.dstack([PIXELS, MASK * 255]))
    wide = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    palette = rgb.convert("P")
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)], "duration": 10}
    files = {f"{mode}.png": encoded(rgb.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB")}
    files |= {f"{form}.tif": encoded(rgb, "TIFF", compression=form) for form in ("raw", "tiff_lzw", "jpeg")}
    files |= {
        "rgba.png": encoded(rgba, "PNG"),
        "wide.png": encoded(wide, "PNG"),
        "transparent.png": encoded(palette, "PNG", transparency=0),
        "frames.png": encoded(rgb, "PNG", **frames),
        "rgb.jpg": encoded(rgb, "JPEG", exif=exif),
        "progressive.jpg": encoded(rgb, "JPEG", progressive=True),
        "cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
        "frames.gif": encoded(palette, "GIF", **frames),
        "frames.webp": encoded(rgb, "WEBP", **frames),
        "lossless.webp": encoded(rgba, "WEBP", lossless=True),
        "wide.tif": encoded(wide, "TIFF"),
        "float.tif": encoded(Image.fromarray(PIXELS[..., 0].astype(np.float32)), "TIFF"),
        "rgb.bmp": encoded(rgb, "BMP"),
        "rgb.ppm": encoded(rgb, "PPM"),
        "wide.pgm": encoded(wide, "PPM"),
    }
    if features.check("avif"):
        files["rgb.avif"] = encoded(rgb, "AVIF")
    return files


def images_list() -> list[bytes]:
    """The files of `images`."""
    return list(images().values())


@functools.cache
def arrays() -> dict[str, bytes]:
    """.npy files of class numbers."""
    files = {}
    for dtype in ("u1", "i4", ">i2", "f4", "?"):
        file = io.BytesIO()
        np.save(file, MASK.astype(dtype))
        files[f"{dtype.strip('>')}.npy"] = file.getvalue()
    return files


def rle() -> dict[str, Any]:
    """COCO's compressed mask."""
    return {"size": list(SIZE), "counts": masks.encode(MASK)}


def coco() -> dict[str, Any]:
    """An annotations.json of a.png and b.png."""
    height, width = SIZE
    image = {"height": height, "width": width}
    flat = MASK.T.ravel()
    ends = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    segmentations = (
        [SQUARE],
        rle(),
        {"size": list(SIZE), "counts": np.diff(ends).tolist()},
        [SQUARE, SQUARE],
    )
    return {
        "images": [{"id": i, "file_name": name, **image} for i, name in enumerate(("a.png", "b.png"), 1)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "ignore"}],
        "annotations": [
            {"id": i, "image_id": 1 + i % 2, "category_id": 1, "iscrowd": 0, "segmentation": segmentation}
            | ({"expressions": ["the left one", "a thing"]} if i == 3 else {})
            for i, segmentation in enumerate(segmentations)
        ],
    }


def refs() -> list[dict[str, Any]]:
    """RefCOCO's refs to the objects of `coco`."""
    return [
        {
            "ref_id": i,
            "ann_id": i,
            "image_id": 1 + i % 2,
            "category_id": 1,
            "split": ("train", "val")[i % 2],
            "sentences": [{"sent_id": 2 * i + k, "sent": f"Thing {k}"} for k in range(2)],
        }
        for i in range(4)
    ]


def labelme() -> dict[str, Any]:
    """Shapes of all types that labelme draws."""
    mask = base64.b64encode(encoded(Image.fromarray(MASK[3:8, 4:11] * 255), "PNG")).decode()
    shapes = [
        {"label": "cat", "points": SHAPE, "shape_type": "polygon", "group_id": 1, "description": "the cat"},
        {"label": "dog", "points": [[1, 1], [6, 6]], "shape_type": "rectangle", "group_id": None},
        {"label": "dog", "points": [[8, 6], [9, 9]], "shape_type": "circle"},
        {"label": "hat", "points": [[4, 3], [10, 7]], "shape_type": "mask", "mask": mask},
        {"label": "__ignore__", "points": SHAPE},
    ]
    return {"version": "5", "imageHeight": SIZE[0], "imageWidth": SIZE[1], "shapes": shapes, "flags": {}}


def reasonseg() -> dict[str, Any]:
    """An annotation with two texts."""
    shapes = [
        {"label": "target", "points": SHAPE},
        {"label": "ignore this", "points": [[0, 0], [3, 0], [3, 3]]},
        {"label": "flag", "points": [[0, 0]]},
    ]
    return {"text": ["What purrs?", "the cat"], "is_sentence": True, "shapes": shapes}


YOLO = "0 0.25 0.25 0.7 0.25 0.7 0.7 0.25 0.7\n1 0.1 0.1 0.2 0.1 0.2 0.3\n"
YOLO_LIST = "path: .\ntrain: images\nnames:\n  0: cat\n  1: dog\nnc: 2\n"
METADATA = (
    '{"file_name": "a.png", "mask_file_name": "masks/a.png", "label": "cat", "text": "a cat"}\n'
    '{"file_name": "b.png", "mask_file_names": ["masks/b.png", "masks/c.png"], "labels": ["cat", 1]}\n'
)
TABLE = "file_name,mask,label,text\na.png,masks/a.png,cat,a cat\nb.png,masks/b.png,1,two\n"
PHRASES = 'name,phrase\na,the cat\nb.png,"the dog, a big one"\n'
CLASS_LISTS = {
    "classes.txt": "background\ncat\ndog\n# no\n",
    "labels.txt": "0 background\n1 cat\n2 dog\n255 ignore\n",
    "names.txt": "cat: 1\ndog: 2\n",
    "label_colors.txt": "0 0 0 background\n128 64 128\troad\n64 0 128\tcar\n",
    "labelmap.txt": "background:0,0,0::\ncat:128,0,0::\n",
    "colours.txt": "cat #ff0000\ndog #00ff00\n",
    "class_dict.csv": "name,r,g,b\ncat,64,128,64\ndog,192,0,128\n",
    "_classes.csv": "Pixel Value, Class\n0, background\n1, cat\n",
    "data.yaml": YOLO_LIST,
    "classes.yaml": "- cat\n- {name: dog, color: [1, 2, 3]}\n- {id: 7, name: cow, color: '#010203'}\n",
    "id2label.json": json.dumps({"id2label": {"0": "cat", "1": "dog", "255": None}}),
    "classes.json": json.dumps([{"name": "cat", "id": 1, "color": [255, 0, 0]}, {"name": "dog", "id": 2}]),
    "colors.json": json.dumps({"cat": [1, 2, 3], "dog": "#040506"}),
}
