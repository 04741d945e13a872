"""Pictures of any size to what the model takes, and masks back to the picture's size."""

import numpy as np
from etils import epath
from jaxtyping import Bool, Float, UInt8
from PIL import ExifTags, Image

from genmask_jax.config import SamplerConfig
from genmask_jax.errors import UserError

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises of a file that is no picture, or not whole."""
RESIZE = "bilinear to a square; probabilities bilinear back, then thresholded"
"""The method, recorded with every score."""


def upright(picture: Image.Image) -> Image.Image:
    """A picture turned as its EXIF orientation says; as it is where there is none that can be read."""
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF raises whatever its bytes happen to say, and the pixels are good
        return picture
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return picture.transpose(turns[orientation]) if orientation in turns else picture


def read_picture(path: epath.PathLike) -> UInt8[np.ndarray, "H W 3"]:
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
    """A picture stretched to the square that the model was trained at."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def to_picture_size(
    probability: Float[np.ndarray, "size size"], shape: tuple[int, int]
) -> Float[np.ndarray, "H W"]:
    """Probabilities at a picture's own (height, width); thresholded afterwards."""
    if probability.shape == shape:
        return probability
    picture = Image.fromarray(probability.astype(np.float32))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.BILINEAR))


def to_mask(
    probability: Float[np.ndarray, "size size"], shape: tuple[int, int], sampler: SamplerConfig
) -> tuple[Bool[np.ndarray, "H W"], float]:
    """The mask at a picture's own (height, width), and its score: the mean probability of its pixels.

    It is empty where `is_no_target` says that nothing in the picture is meant.
    """
    probability = to_picture_size(probability, shape)
    mask = probability > sampler.mask_threshold
    score = float(probability[mask].mean(dtype=np.float64)) if mask.any() else 0.0
    if is_no_target(int(np.count_nonzero(mask)), mask.size, score, sampler):
        mask = np.zeros_like(mask)
    return mask, score


def is_no_target(area: int, pixels: int, score: float, sampler: SamplerConfig) -> bool:
    """Whether a mask is too small, or too uncertain, to be of anything: so that "no target" can be said.

    Args:
        area: pixels of the mask.
        pixels: of the picture.
        score: mean probability of the mask's pixels; 0 if there are none.
        sampler: its `no_target_area` and `no_target_score`, which are best chosen on val.
    """
    return area <= sampler.no_target_area * pixels or score < sampler.no_target_score
