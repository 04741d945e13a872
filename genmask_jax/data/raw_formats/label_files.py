"""Reads files with a class for every pixel: as numbers (grey, or with a palette), or as colours.

Numbers have 8, 16 or 32 bits in PNG, TIFF and other formats, or any integer type in .npy. Colours are those
of RGB images and palettes. In lossless files, a colour must be exactly that of a class. In JPEG and other
lossy files, and in files with more than MAX_COLOURS colours, a pixel gets the nearest class within
MAX_DISTANCE.

Transparent pixels are black. If all pixels have one number or are black then, and the alpha channel has a
shape, opaque pixels are white (255), or have this number.
"""

import dataclasses
import io
import math

import numpy as np
from etils import epath

from genmask_jax.utils.images import (
    MASK_LEVEL,
    SUFFIXES,
    UNREADABLE,
    decode_mask,
    decoding,
    load_image,
    why_unreadable,
)

LABEL_SUFFIXES = (*SUFFIXES, ".npy")
LOSSY = {"JPEG", "MPO", "WEBP", "AVIF", "HEIF", "JPEG2000"}
"""Pillow's names of formats that change colours."""
MAX_COLOURS = 256
MAX_DISTANCE = 32.0
"""Euclidean distance in RGB, levels from 0 to 255."""
NO_CLASS = -1
"""Number of a pixel whose colour has no class."""


@dataclasses.dataclass(frozen=True)
class LabelFile:
    """A file with a class for every pixel.

    path: path of the file.
    colours: colours of the classes (0xRRGGBB), if the file has colours. A pixel's number is then the index of
        its colour.
    ignored: numbers of ignored pixels.
    """

    path: str
    colours: tuple[int, ...] = ()
    ignored: tuple[int, ...] = ()

    def read(self) -> np.ndarray:
        """The numbers, int32 [H, W].

        Raises:
            ValueError: the file cannot be read, or has colours instead of numbers.
        """
        if not self.colours:
            return read_numbers(epath.Path(self.path))
        colours, lossy = read_colours(epath.Path(self.path))
        unique, indices = np.unique(colours, return_inverse=True)
        return nearest(unique, self.colours, lossy or len(unique) > MAX_COLOURS)[indices].reshape(
            colours.shape
        )


def read_numbers(path: epath.Path) -> np.ndarray:
    """The numbers of a file, int32 [H, W]; indices for a file with a palette.

    Raises:
        ValueError: the file cannot be read, has colours or fractions, or has a lossy format.
    """
    content = b""
    try:
        content = path.read_bytes()
        if path.name.lower().endswith(".npy"):
            numbers, lossy = _read_npy(content), False
        else:
            image = load_image(content)
            numbers, lossy = np.asarray(image), image.format in LOSSY
    except UNREADABLE as error:
        raise ValueError(f"{path}: this mask cannot be read ({why_unreadable(error, content)})") from error
    if (numbers.ndim == 3 and numbers.shape[-1] == 2) or (
        numbers.ndim == 3 and (numbers[..., :1] == numbers[..., :3]).all()
    ):  # grey and alpha
        numbers = _without_alpha(numbers)
    if numbers.ndim != 2:
        raise ValueError(
            f"{path} has colours without names; write label_colors.txt with a line such as `128 64 128 road` "
            "for each colour"
        )
    if lossy:
        raise ValueError(f"{path} has a lossy format, which changes class numbers; save it as PNG")
    if not numbers.size:
        raise ValueError(f"{path} has no pixels")
    with np.errstate(invalid="ignore"):
        integers = numbers.astype(np.int32)
    if not (integers == numbers).all():
        raise ValueError(f"{path} has numbers that are not 32-bit integers")
    return integers


def _read_npy(content: bytes) -> np.ndarray:
    """The array in a .npy file. Raises ValueError if it is not one of numbers, or is shorter than it says."""
    with decoding():
        file = io.BytesIO(content)
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"it has version {version[0]} of .npy; save it with numpy.save")
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(file)
        if dtype.kind not in "biuf":
            raise ValueError(f"it has {dtype}, not numbers")
        if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize > len(content):
            raise ValueError("it is shorter than its header says")
        return np.load(io.BytesIO(content), allow_pickle=False)


def _without_alpha(pixels: np.ndarray) -> np.ndarray:
    """The numbers of grey pixels [H, W, 2 to 4], the last of which is alpha if there are 2 or 4."""
    numbers, alpha = pixels[..., 0], pixels[..., -1]
    if (
        pixels.shape[-1] == 3
        or not alpha.size
        or (alpha == alpha[0, 0]).all()
        or (numbers != numbers[0, 0]).any()
    ):
        return numbers
    return np.where(alpha >= MASK_LEVEL, int(numbers[0, 0]) or 255, 0)


def read_colours(path: epath.Path) -> tuple[np.ndarray, bool]:
    """The colours of a file (0xRRGGBB, int32 [H, W]; see `decode_mask`), and whether its format is lossy.

    Raises:
        ValueError: the file cannot be read.
    """
    content = b""
    try:
        content = path.read_bytes()
        lossy = load_image(content).format in LOSSY
        rgb = decode_mask(content)
    except UNREADABLE as error:
        raise ValueError(f"{path}: this mask cannot be read ({why_unreadable(error, content)})") from error
    colours = rgb[..., 0].astype(np.int32)
    for channel in (1, 2):  # in place, for large images
        colours <<= 8
        colours |= rgb[..., channel]
    return colours, lossy


def palette_of(path: epath.Path) -> dict[int, int]:
    """The colours (0xRRGGBB) of the used palette indices of an image; {} without a palette."""
    try:
        if load_image(path.read_bytes()).mode != "P":
            return {}
        numbers, (colours, _) = read_numbers(path), read_colours(path)
    except (*UNREADABLE, ValueError):
        return {}
    indices, first = np.unique(numbers, return_index=True)
    return dict(zip(indices.tolist(), colours.ravel()[first].tolist(), strict=True))


def nearest(queries: np.ndarray, colours: tuple[int, ...], lossy: bool) -> np.ndarray:
    """For each colour in `queries` [N], the index in `colours` or NO_CLASS; int32 [N]."""
    best = np.full(len(queries), NO_CLASS, np.int32)
    smallest = np.full(len(queries), MAX_DISTANCE if lossy else 0.0)
    levels = [(queries >> shift & 255).astype(np.float64) for shift in (16, 8, 0)]
    for index in reversed(range(len(colours))):
        class_levels = [colours[index] >> shift & 255 for shift in (16, 8, 0)]
        distance = np.sqrt(sum((a - b) ** 2 for a, b in zip(levels, class_levels, strict=True)))
        closer = distance <= smallest
        best[closer], smallest[closer] = index, distance[closer]
    return best
