"""Decodes image files to upright RGB with 8 bits per channel.

Handling of Pillow's modes:

| mode | RGB pixels |
|---|---|
| 1, L, P, RGB, RGBX, YCbCr, CMYK, HSV | converted |
| LA, La, PA, RGBA, RGBa, and any mode with a transparent colour | composited on a background |
| I;16 in any byte order; I in PGM and PNG files | 16 bits, scaled to 8 |
| I in other files, F | rejected: the range of the values is unknown |
| LAB | rejected: Pillow cannot convert it |

Files may come from strangers: only the decoders of FORMATS read them, and images of more than 178 megapixels
are rejected before memory is taken for their pixels.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import io
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from genmask_jax.utils.errors import UserError, first_line, short_repr
from genmask_jax.utils.paths import DOWNLOAD, to_path

if importlib.util.find_spec("pillow_heif"):  # optional: photographs of phones
    importlib.import_module("pillow_heif").register_heif_opener()

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif"),
    *(".heic", ".heif", ".jxl"),
)
"""Suffixes of image files, in lower case, including formats that are reported because they cannot be read."""
FORMATS = (
    *(
        "AVIF",
        "BMP",
        "DIB",
        "GIF",
        "HEIF",
        "ICO",
        "JPEG",
        "JPEG2000",
        "PNG",
        "PPM",
        "QOI",
        "TGA",
        "TIFF",
        "WEBP",
    ),
)
"""Pillow's names of the formats that are read. Its others are rare or run programs: Ghostscript for EPS."""
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""Exceptions that Pillow raises for files that are damaged or not images."""
SIGNATURES = {
    (4, b"ftypheic"): "it is HEIC: pip install pillow-heif, or save it as JPEG",
    (4, b"ftypheix"): "it is HEIC: pip install pillow-heif, or save it as JPEG",
    (4, b"ftypmif1"): "it is HEIF: pip install pillow-heif, or save it as JPEG",
    (0, b"\xff\x0a"): "it is JPEG XL, which Pillow cannot read; save it as PNG",
    (4, b"JXL \r\n\x87\n"): "it is JPEG XL, which Pillow cannot read; save it as PNG",
    (0, b"%!PS"): "it is PostScript, a program that draws; save it as PNG",
    (0, b"8BPS"): "it is a file of Photoshop; save it as PNG",
    (0, b"%PDF"): "it is a PDF; save the page as PNG",
    (0, b"<svg"): "it is SVG, a drawing; save it as PNG",
    (0, b"<?xml"): "it is XML, perhaps SVG; save the drawing as PNG",
    (0, b"<!DOC"): "it is a web page, perhaps of a failed download",
    (0, b"<html"): "it is a web page, perhaps of a failed download",
}
"""Error messages for formats that Pillow cannot read, by their (offset, signature)."""
MASK_LEVEL = 128
"""Smallest alpha of an opaque pixel in masks of class numbers."""
DOWNLOAD_IMAGE = f"{DOWNLOAD} or the bytes"


def decode(content: bytes, *, upright: bool = True, background: str = "white") -> Image.Image:
    """Decodes an image file to RGB.

    Args:
        content: bytes of the file.
        upright: apply the EXIF orientation; an unreadable one is ignored.
        background: colour under transparent pixels.

    Raises:
        One of UNREADABLE: see `why_unreadable`.
    """
    image = load_image(
        content
    )  # before reading EXIF, so that damaged pixels are not mistaken for damaged EXIF
    orientation = _orientation(image) if upright else 1  # 1 for TIFF, which Pillow turns itself
    with decoding():
        return _turn_upright(_to_rgb(image, background), orientation)


def load_image(content: bytes) -> Image.Image:
    """Decodes the first frame of an image file in its own mode. Raises one of UNREADABLE."""
    with decoding():
        image = Image.open(io.BytesIO(content), formats=_formats())
        image.load()
        return image


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats of FORMATS that this Pillow can open."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Converts the exceptions of decoders to one of UNREADABLE: for damaged files, they raise anything."""
    try:
        yield
    except UNREADABLE:
        raise
    except Exception as error:
        raise ValueError(first_line(error)) from error


def decode_mask(content: bytes) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes the file of a mask as stored; transparent pixels are black.

    If no colour is left then, the shape is in the alpha channel alone: opaque pixels are white. An alpha
    channel that is the same everywhere is ignored.

    Raises:
        One of UNREADABLE: see `why_unreadable`.
    """
    image = load_image(content)
    with decoding():
        shown = np.asarray(_to_rgb(image, "black"))
        if not image.has_transparency_data:
            return shown
        rgba = np.asarray(image.convert("RGBA"))
    alpha = rgba[..., 3:]
    if (alpha == alpha[0, 0]).all():
        return rgba[..., :3]
    return shown if shown.any() else np.repeat(alpha, 3, axis=-1)


@dataclasses.dataclass(frozen=True)
class Frame:
    """(height, width) of an image as stored and after its EXIF `orientation` is applied (1: none)."""

    stored: tuple[int, int]
    upright: tuple[int, int]
    orientation: int


def read_frame(path: epath.Path) -> Frame | None:
    """Reads the header of an image file without decoding its pixels; None if it cannot be read."""
    try:
        with decoding(), path.open("rb") as file, Image.open(file, formats=_formats()) as image:
            if image.format == "TIFF":
                image.load()  # applies the orientation
            (width, height), orientation = image.size, _orientation(image)
    except UNREADABLE:
        return None
    turned = orientation > 4  # by 90 degrees
    return Frame((height, width), (width, height) if turned else (height, width), orientation)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if it is missing or unreadable."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF can raise anything; the pixels are still valid
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _turn_upright(rgb: Image.Image, orientation: int) -> Image.Image:
    """Applies an EXIF orientation in place.

    Drops the other EXIF data first: `exif_transpose` encodes it again, and fails if it is damaged.
    """
    rgb.info.clear()
    rgb.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(rgb, in_place=True)
    return rgb


def _to_rgb(image: Image.Image, background: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG")):
        levels = np.round(np.asarray(image).astype(np.float32) / 257)
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise ValueError(f"its pixels are 32-bit {kind} of unknown range; save it with 8 or 16 bits")
    if image.mode == "LAB":
        raise ValueError("its colours are CIELAB; save it as RGB")
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, background)
        return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def why_unreadable(error: Exception, content: bytes = b"") -> str:
    """The reason why a file cannot be read, as a clause.

    Args:
        error: one of UNREADABLE.
        content: bytes of the file, or the first of them.
    """
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels; reduce it"
    if isinstance(error, UnidentifiedImageError):
        if not content.strip(b"\0"):
            return "the file is empty" if not content else "the file has only zeros"
        reasons = (
            reason
            for (offset, signature), reason in SIGNATURES.items()
            if content[offset : offset + len(signature)] == signature
        )
        return next(reasons, "it is not an image")
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_image(path: epath.PathLike, flag: str = "--image") -> UInt8[np.ndarray, "H W 3"]:
    """Reads an image file as upright RGB; errors name `flag`. Raises UserError as `read_named` does."""
    return read_named(to_path(path, flag, DOWNLOAD_IMAGE), f"{flag}={path}")


def read_named(path: epath.PathLike, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """Reads an image file as upright RGB; errors call it `name`.

    Raises:
        UserError: the file is missing, damaged or not an image, or its format or mode is not supported.
    """
    return _decode_named(epath.Path(path).read_bytes, name)


def _decode_named(read: Callable[[], Any], name: str) -> UInt8[np.ndarray, "H W 3"]:
    content = b""
    try:
        data = read()
        if isinstance(data, str):
            raise ValueError("it is open in text mode; open it with mode 'rb'")
        content = bytes(data)
        return np.asarray(decode(content))
    except UNREADABLE as error:
        raise UserError(f"{name}: {why_unreadable(error, content)}") from error


def to_rgb(image: Any, name: str = "image") -> UInt8[np.ndarray, "H W 3"]:
    """Converts an image of any kind to upright RGB; uses the first frame of an animation.

    Args:
        image: a path, the bytes of an image file, a file open for reading, a Pillow image in any mode, or an
            array or tensor `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]`: uint8, uint16,
            bool, or floats in [0, 1].
        name: name of the argument, for errors.

    Raises:
        UserError: the image cannot be read, or the range of its values is unknown.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, name)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _decode_named(lambda: image, name)
    if callable(getattr(image, "read", None)):
        return _decode_named(functools.partial(_read_all, image), name)
    if isinstance(image, Image.Image):
        try:
            with decoding():
                rgb = _turn_upright(_to_rgb(image, "white"), _orientation(image))
        except UNREADABLE as error:
            raise UserError(f"{name}: {why_unreadable(error)}") from error
        return _need_pixels(np.asarray(rgb), name)
    array = _to_array(image, name)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)):
        hints = {4: "for several images, give a list"}
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hints[3] = "channels are the last axis"
        hint = hints.get(array.ndim, "give [H, W, 3] or [H, W]")
        raise UserError(f"{name}: an array of shape {array.shape} is not an image; {hint}")
    levels = _to_levels(_need_pixels(array, name), name)
    return np.asarray(_to_rgb(Image.fromarray(np.ascontiguousarray(levels)), "white"))


def _read_all(file: Any) -> Any:
    """The content of an open file, from its beginning if it is seekable."""
    seekable = getattr(file, "seekable", None)
    if seekable is not None and seekable():
        file.seek(0)
    return file.read()


def _need_pixels(array: np.ndarray, name: str) -> np.ndarray:
    if not array.size:
        raise UserError(f"{name}: an image of shape {array.shape} has no pixels")
    return array


def _to_array(image: Any, name: str) -> np.ndarray:
    """Converts an array of any library to NumPy."""
    hint = "give a path, bytes, an open file, a Pillow image, or an array"
    try:
        if hasattr(image, "detach"):  # a PyTorch tensor, perhaps with a gradient or on a GPU
            image = image.detach().cpu()
            image = image.float() if image.dtype.is_floating_point else image
        array = np.asarray(image)
    except Exception as error:  # other libraries can raise anything
        raise UserError(f"{name}: this {type(image).__name__} is not an image; {hint}") from error
    if array.dtype.kind in "OSUMm" or not array.ndim:
        raise UserError(f"{name}={short_repr(image)} is not an image; {hint}")
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _to_levels(array: np.ndarray, name: str) -> UInt8[np.ndarray, "..."]:
    """Converts the values of an array to levels from 0 to 255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return np.round(array / 257).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{name}: an array of {array.dtype} is not read; give uint8, or floats in [0, 1]")
    low, high = float(array.min()), float(array.max())
    if not np.isfinite(array).all():
        raise UserError(f"{name}: some values of the array are NaN or infinite; give floats in [0, 1]")
    if low < 0 or high > 1:
        raise UserError(
            f"{name}: an array of floats from {low:g} to {high:g}; give floats in [0, 1], or uint8"
        )
    return np.round(array * 255).astype(np.uint8)


def to_model_size(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Resizes an image to the model's square size; the aspect ratio changes."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
