"""Image files as RGB pixels: decoded whole, upright and with 8 bits per channel, or the reason why not.

What becomes of Pillow's modes:

| mode | RGB pixels |
|---|---|
| 1, L, P, RGB, RGBX, YCbCr, CMYK, HSV | converted |
| LA, La, PA, RGBA, RGBa, and any mode with a transparent colour | composed on a background |
| I;16 in any byte order; I in PGM and PNG files | 16 bits, scaled to 8 |
| I elsewhere, F | refused: the range of the values is not known |
| LAB | refused: Pillow does not convert it |
"""

import dataclasses
import functools
import importlib.util
import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from genmask_jax.utils.errors import UserError, shown
from genmask_jax.utils.paths import DOWNLOAD, to_path

if importlib.util.find_spec("pillow_heif"):  # photographs of phones, for those who have the package
    importlib.import_module("pillow_heif").register_heif_opener()

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif"),
    *(".heic", ".heif", ".jxl"),
)
"""Ends of the names of image files, in lower case, also of those that cannot be read and are then named."""
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for a file that is not an image or is damaged."""
SIGNATURES = {
    (4, b"ftypheic"): "it is HEIC: pip install pillow-heif, or save it as JPEG",
    (4, b"ftypheix"): "it is HEIC: pip install pillow-heif, or save it as JPEG",
    (4, b"ftypmif1"): "it is HEIF: pip install pillow-heif, or save it as JPEG",
    (0, b"\xff\x0a"): "it is JPEG XL, which Pillow cannot read; save it as PNG",
    (4, b"JXL \r\n\x87\n"): "it is JPEG XL, which Pillow cannot read; save it as PNG",
    (0, b"%PDF"): "it is a PDF; save the page as PNG",
    (0, b"<svg"): "it is SVG, a drawing; save it as PNG",
    (0, b"<?xml"): "it is XML, perhaps SVG; save the drawing as PNG",
    (0, b"<!DOC"): "it is a web page, perhaps of a failed download",
    (0, b"<html"): "it is a web page, perhaps of a failed download",
}
"""(Offset, bytes) at which formats that Pillow lacks are known, and what to say of them."""


DOWNLOAD_IMAGE = f"{DOWNLOAD} or the bytes"


def decode(content: bytes, *, upright: bool = True, background: str = "white") -> Image.Image:
    """An image file as an RGB image.

    Args:
        content: of the file.
        upright: turn it as its EXIF orientation says; one that cannot be read is ignored.
        background: what shows through transparent pixels.

    Raises:
        one of UNREADABLE: see `why_unreadable`.
    """
    image = Image.open(io.BytesIO(content))
    image.load()  # before the EXIF data is looked at, so that damaged pixels are not taken for damaged EXIF
    orientation = _orientation(image) if upright else 1  # Pillow itself turns TIFF, and says so
    return _turned(_to_rgb(image, background), orientation)


@dataclasses.dataclass(frozen=True)
class Frame:
    """Height and width of an image as stored and as turned by its EXIF `orientation`, 1 if it has none."""

    stored: tuple[int, int]
    upright: tuple[int, int]
    orientation: int


def read_frame(path: epath.Path) -> Frame | None:
    """What the header of an image file says; None if the file cannot be read.

    `ImageOps.exif_transpose` would decode the pixels.
    """
    try:
        with path.open("rb") as file, Image.open(file) as image:
            if image.format == "TIFF":
                image.load()  # turns it
            (width, height), orientation = image.size, _orientation(image)
    except UNREADABLE:
        return None
    turned = orientation > 4  # by a quarter
    return Frame((height, width), (width, height) if turned else (height, width), orientation)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if there is none that can be read."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF can raise anything, and the pixels are good
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _turned(rgb: Image.Image, orientation: int) -> Image.Image:
    """Turns an image upright, in place, that was converted from one of that EXIF orientation.

    The rest of the EXIF is dropped first: `exif_transpose` encodes it again, and fails where it is damaged.
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
        behind = Image.new("RGBA", image.size, background)
        return Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def why_unreadable(error: Exception, content: bytes = b"") -> str:
    """Why a file is not read, in a clause.

    Args:
        error: one of UNREADABLE.
        content: of the file, or its first bytes.
    """
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels; reduce it"
    if isinstance(error, UnidentifiedImageError):
        if not content.strip(b"\0"):
            return "the file is empty" if not content else "the file holds nothing but zeros"
        known = (why for (at, mark), why in SIGNATURES.items() if content[at : at + len(mark)] == mark)
        return next(known, "it is not an image")
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_image(path: epath.PathLike, flag: str = "--image") -> UInt8[np.ndarray, "H W 3"]:
    """Reads an image file as upright RGB; `flag` names it in the error. For the rest see `read_named`."""
    return read_named(to_path(path, flag, DOWNLOAD_IMAGE), f"{flag}={path}")


def read_named(path: epath.PathLike, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """Reads an image file as upright RGB; `name` is what the error calls the file.

    Raises:
        UserError: it is missing, not an image, damaged, or of a format or mode that is not read.
    """
    return _decoded(epath.Path(path).read_bytes, name)


def _decoded(read: Callable[[], Any], name: str) -> UInt8[np.ndarray, "H W 3"]:
    content = b""
    try:
        found = read()
        if isinstance(found, str):
            raise ValueError("it is open as text; open it with mode 'rb'")
        content = bytes(found)
        return np.asarray(decode(content))
    except UNREADABLE as error:
        raise UserError(f"{name}: {why_unreadable(error, content)}") from error


def to_rgb(image: Any, name: str = "image") -> UInt8[np.ndarray, "H W 3"]:
    """An image of any kind as upright RGB; of an animated one, the first frame.

    Args:
        image: a path, the bytes of an image file, a file that is open for reading, an image of Pillow in any
            mode, or an array or tensor `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]`: uint8, uint16,
            bool, or floats in [0, 1].
        name: of the argument, for the error.

    Raises:
        UserError: it cannot be read, or its values have no known meaning.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, name)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _decoded(lambda: image, name)
    if callable(getattr(image, "read", None)):
        return _decoded(functools.partial(_read_whole, image), name)
    if isinstance(image, Image.Image):
        try:
            rgb = _turned(_to_rgb(image, "white"), _orientation(image))
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
    levels = _levels(_need_pixels(array, name), name)
    return np.asarray(_to_rgb(Image.fromarray(np.ascontiguousarray(levels)), "white"))


def _read_whole(file: Any) -> Any:
    """What an open file holds, from its beginning if it can go back there."""
    seekable = getattr(file, "seekable", None)
    if seekable is not None and seekable():
        file.seek(0)
    return file.read()


def _need_pixels(array: np.ndarray, name: str) -> np.ndarray:
    if not array.size:
        raise UserError(f"{name}: an image of shape {array.shape} has no pixels")
    return array


def _to_array(image: Any, name: str) -> np.ndarray:
    """The values of an array of any library."""
    wanted = "give a path, bytes, an open file, an image of Pillow, or an array"
    try:
        if hasattr(image, "detach"):  # a tensor of PyTorch, which may have a gradient, or be on a card
            image = image.detach().cpu()
            image = image.float() if image.dtype.is_floating_point else image
        array = np.asarray(image)
    except Exception as error:  # whatever another library raises
        raise UserError(f"{name}: this {type(image).__name__} is not an image; {wanted}") from error
    if array.dtype.kind in "OSUMm" or not array.ndim:
        raise UserError(f"{name}={shown(image)} is not an image; {wanted}")
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _levels(array: np.ndarray, name: str) -> UInt8[np.ndarray, "..."]:
    """An array's values as levels of 0 to 255."""
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
    """Stretches an image to the square size that the model was trained at."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
