"""Pictures of any size to what the model takes, and masks back to the picture's size."""

import numpy as np
from etils import epath
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError

from genmask_jax.errors import UserError

RESIZE = "bilinear to a square, and back"
"""The method, recorded with every score."""


def read_picture(path: epath.PathLike) -> UInt8[np.ndarray, "H W 3"]:
    """An image file as RGB. Raises UserError when it is missing or no image."""
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"--image={path}: there is no such file")
    try:
        with path.open("rb") as file:
            return np.asarray(Image.open(file).convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise UserError(f"--image={path}: this is not an image that Pillow can read") from error


def to_model_size(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """A picture stretched to the square that the model was trained at."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def to_picture_size(
    probability: Float[np.ndarray, "size size"], shape: tuple[int, int]
) -> Float[np.ndarray, "H W"]:
    """Probabilities at a picture's own (height, width); thresholded afterwards."""
    picture = Image.fromarray(probability.astype(np.float32))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.BILINEAR))
