"""Files that have a class for every pixel: as numbers (grey, or with a palette), or as colours.

Numbers have 8, 16 or 32 bits in PNG, TIFF and the like, or any integer type in .npy. Colours are those of RGB
images and of palettes. In lossless files a colour is exactly a class's; in JPEG and other lossy ones, and
where there are more than MANY colours, it is that of the nearest class within a distance of NEAR.
"""

import dataclasses
import io

import numpy as np
from etils import epath
from PIL import Image

from genmask_jax.images import SUFFIXES, UNREADABLE, decode, why_unreadable

LABEL_SUFFIXES = (*SUFFIXES, ".npy")
LOSSY = {"JPEG", "MPO", "WEBP", "AVIF", "HEIF", "JPEG2000"}
"""Formats of Pillow that change colours."""
MANY = 256
NEAR = 32.0
"""Euclidean distance in RGB, of levels from 0 to 255."""
NOTHING = -1
"""The number of a pixel whose colour is no class's."""


@dataclasses.dataclass(frozen=True)
class LabelFile:
    """A file with a class for every pixel.

    colours: of the classes (0xRRGGBB), if the file has colours: a pixel's number is then its colour's place.
    ignored: the numbers of pixels that do not count.
    """

    path: str
    colours: tuple[int, ...] = ()
    ignored: tuple[int, ...] = ()

    def read(self) -> np.ndarray:
        """The numbers, int32 [H, W].

        Raises:
            ValueError: the file cannot be read, or has colours where numbers are expected.
        """
        if not self.colours:
            return read_numbers(epath.Path(self.path))
        colours, lossy = read_colours(epath.Path(self.path))
        found, places = np.unique(colours, return_inverse=True)
        return nearest(found, self.colours, lossy or len(found) > MANY)[places].reshape(colours.shape)


def read_numbers(path: epath.Path) -> np.ndarray:
    """The numbers of a file, int32 [H, W]; of a palette, its indices.

    Raises:
        ValueError: it cannot be read, has colours or fractions, or a format that changes numbers.
    """
    content = b""
    try:
        content = path.read_bytes()
        if path.name.lower().endswith(".npy"):
            numbers, lossy = np.load(io.BytesIO(content), allow_pickle=False), False
        else:
            image = Image.open(io.BytesIO(content))
            image.load()
            numbers, lossy = np.asarray(image), image.format in LOSSY
    except UNREADABLE as error:
        raise ValueError(f"{path}: this mask cannot be read ({why_unreadable(error, content)})") from error
    if (numbers.ndim == 3 and numbers.shape[-1] == 2) or (
        numbers.ndim == 3 and (numbers[..., :1] == numbers[..., :3]).all()
    ):  # grey and alpha
        numbers = numbers[..., 0]
    if numbers.ndim != 2:
        raise ValueError(
            f"{path} has colours, and no file says which class each means; write label_colors.txt with a "
            "line such as `128 64 128 road` for each"
        )
    if lossy:
        raise ValueError(f"{path} is of a format that changes class numbers; save it as PNG")
    whole = numbers.astype(np.int32)
    if not (whole == numbers).all():
        raise ValueError(f"{path} has numbers that are not integers of 32 bits")
    return whole


def read_colours(path: epath.Path) -> tuple[np.ndarray, bool]:
    """The colours of a file (0xRRGGBB, int32 [H, W]) on black, and whether its format has changed them.

    Raises:
        ValueError: it cannot be read.
    """
    content = b""
    try:
        content = path.read_bytes()
        lossy = Image.open(io.BytesIO(content)).format in LOSSY
        rgb = np.asarray(decode(content, upright=False, background="black")).astype(np.int32)
    except UNREADABLE as error:
        raise ValueError(f"{path}: this mask cannot be read ({why_unreadable(error, content)})") from error
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2], lossy


def palette_of(path: epath.Path) -> dict[int, int]:
    """The colours (0xRRGGBB) of the indices that an image with a palette uses; {} if it has none."""
    try:
        with path.open("rb") as file:
            if Image.open(file).mode != "P":
                return {}
        numbers, (colours, _) = read_numbers(path), read_colours(path)
    except (*UNREADABLE, ValueError):
        return {}
    found, first = np.unique(numbers, return_index=True)
    return dict(zip(found.tolist(), colours.ravel()[first].tolist(), strict=True))


def nearest(found: np.ndarray, colours: tuple[int, ...], lossy: bool) -> np.ndarray:
    """The place in `colours` of each of the colours [N], NOTHING where there is none; int32 [N]."""
    best = np.full(len(found), NOTHING, np.int32)
    least = np.full(len(found), NEAR if lossy else 0.0)
    levels = [(found >> shift & 255).astype(np.float64) for shift in (16, 8, 0)]
    for place in reversed(range(len(colours))):
        its = [colours[place] >> shift & 255 for shift in (16, 8, 0)]
        distance = np.sqrt(sum((a - b) ** 2 for a, b in zip(levels, its, strict=True)))
        closer = distance <= least
        best[closer], least[closer] = place, distance[closer]
    return best
