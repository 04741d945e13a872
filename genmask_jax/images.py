"""Reads image files as RGB pixels, turns them upright and resizes them."""

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import ExifTags, Image

from genmask_jax.errors import UserError

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for a file that is not an image or is truncated."""


def upright(image: Image.Image) -> Image.Image:
    """An image turned by its EXIF orientation; unchanged if it has none that can be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF can raise anything, and the pixels are still good
        return image
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def read_image(path: epath.PathLike) -> UInt8[np.ndarray, "H W 3"]:
    """Reads an image file as RGB, turned by its EXIF. Raises UserError if it is missing or not an image."""
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"--image={path}: there is no such file")
    try:
        with path.open("rb") as file:
            return np.asarray(upright(Image.open(file)).convert("RGB"))
    except UNREADABLE as error:
        raise UserError(f"--image={path}: this is not an image that Pillow can read") from error


def to_model_size(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Stretches an image to the square size that the model was trained at."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
