"""Image files to RGB pixels: read, turned upright, resized."""

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import ExifTags, Image

from genmask_jax.errors import UserError

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises of a file that is no image, or not whole."""


def upright(image: Image.Image) -> Image.Image:
    """An image turned as its EXIF orientation says; as it is where there is none that can be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF raises whatever its bytes happen to say, and the pixels are good
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
    """An image file as RGB, turned as its EXIF says. Raises UserError when it is missing or no image."""
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"--image={path}: there is no such file")
    try:
        with path.open("rb") as file:
            return np.asarray(upright(Image.open(file)).convert("RGB"))
    except UNREADABLE as error:
        raise UserError(f"--image={path}: this is not an image that Pillow can read") from error


def to_model_size(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """An image stretched to the square that the model was trained at."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
