"""Prepares images as patches for Qwen2.5-VL, on the host.

Reference: transformers' `Qwen2VLImageProcessorPil`, `get_vision_window_index` and `get_vision_position_ids`.
Unlike there, pixels stay uint8 and an image has one frame instead of two equal ones; see `vision.py`.
"""

import functools
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from genmask_jax.instruction.qwen.config import QwenVisionConfig
from genmask_jax.utils.errors import UserError

MAX_ASPECT = 200


def resized_shape(
    height: int, width: int, token_size: int, min_tokens: int, max_tokens: int
) -> tuple[int, int]:
    """Number of rows and columns of tokens of an image, after resizing it to a multiple of the token size.

    Preserves the aspect ratio up to rounding, and keeps the number of tokens within bounds.

    Args:
        height, width: size of the image in pixels.
        token_size: side of a token in pixels.
        min_tokens, max_tokens: bounds on the number of tokens.

    Raises:
        UserError: one side is more than 200 times the other.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise UserError(
            f"an image of {width} x {height}: the aspect ratio must be at most 1 to {MAX_ASPECT}; crop it"
        )
    rows, columns = round(height / token_size), round(width / token_size)
    area = token_size**2
    if rows * columns > max_tokens:
        shrink = math.sqrt(height * width / (max_tokens * area))
        rows, columns = (max(1, math.floor(side / shrink / token_size)) for side in (height, width))
    elif rows * columns < min_tokens:
        enlarge = math.sqrt(min_tokens * area / (height * width))
        rows, columns = (math.ceil(side * enlarge / token_size) for side in (height, width))
    return rows, columns


def fit(
    image: UInt8[np.ndarray, "H W 3"], config: QwenVisionConfig, min_tokens: int, max_tokens: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Resizes an image to `resized_shape` with bicubic interpolation."""
    rows, columns, _ = image.shape
    shape = resized_shape(rows, columns, config.token_size, min_tokens, max_tokens)
    height, width = (side * config.token_size for side in shape)
    if (rows, columns) == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def prepare_image(
    fitted: UInt8[np.ndarray, "h w 3"], config: QwenVisionConfig, budget: int
) -> dict[str, np.ndarray]:
    """Prepares an image for the vision tower, padded to `budget` tokens.

    Args:
        fitted: an image whose sides are multiples of the token size (see `fit`).
        config: shape of the vision tower.
        budget: number of tokens of the result.

    Returns:
        `patches`, `patch_positions`, `windows` and `order`, see `QwenVision`.
    """
    patch, merge = config.patch_size, config.merge_size
    rows, columns = (side // config.token_size for side in fitted.shape[:2])
    layout = _layout(rows, columns, config, budget)
    squares = fitted.reshape(rows, merge, patch, columns, merge, patch, 3)
    patches = squares.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns * merge**2, -1)
    padded = np.zeros((len(layout["windows"]), patches.shape[1]), np.uint8)
    padded[: len(patches)] = patches[layout["sequence"]]
    return {"patches": padded, **{name: layout[name] for name in ("patch_positions", "windows", "order")}}


@functools.lru_cache(maxsize=1024)
def _layout(rows: int, columns: int, config: QwenVisionConfig, budget: int) -> dict[str, np.ndarray]:
    """The order of the patches of an image of rows x columns tokens.

    sequence: the patch at each position; patches are numbered token by token, and row by row within a token.
    patch_positions, windows, order: see `QwenVision`; padded.
    """
    merge, window_patches = config.merge_size, config.window_patches
    side = config.window_size // config.token_size
    row, column = (index.reshape(-1) for index in np.indices((rows, columns)))
    window_of_token = row // side * math.ceil(columns / side) + column // side
    tokens = np.argsort(window_of_token, kind="stable")
    patches_per_token = merge**2
    count = patches_per_token * len(tokens)
    length = math.ceil(patches_per_token * budget / window_patches) * window_patches
    inside_row, inside_column = (index.reshape(-1) for index in np.indices((merge, merge)))
    positions = np.zeros((length, 2), np.int32)
    positions[:count, 0] = (merge * row[tokens, None] + inside_row).reshape(-1)
    positions[:count, 1] = (merge * column[tokens, None] + inside_column).reshape(-1)
    windows = np.full(length, -1, np.int32)
    windows[:count] = np.repeat(window_of_token[tokens], patches_per_token)
    order = np.zeros(budget, np.int32)
    order[: len(tokens)] = np.argsort(tokens)
    sequence = (patches_per_token * tokens[:, None] + np.arange(patches_per_token)).reshape(-1)
    return {"sequence": sequence, "patch_positions": positions, "windows": windows, "order": order}
