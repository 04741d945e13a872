"""Images and masks at the edge: empty, tiny, huge, animated, of unusual modes, and bombs."""

import io
import tracemalloc
import zlib

import numpy as np
import pytest
from etils import epath
from PIL import Image

from genmask_jax.data.raw_formats.label_files import read_colours, read_numbers
from genmask_jax.evaluation.predictions import read_predictions
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import to_model_size, to_rgb
from tests.faults.corpus import MASK, PIXELS, encoded

RGB = Image.fromarray(PIXELS)
FRAMES = {"save_all": True, "append_images": [RGB.rotate(180)], "duration": 10}


def png(width: int, height: int, colour: int = 2, bits: int = 8, data: bytes = b"") -> bytes:
    """A PNG whose header claims a size, whatever its data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
        )

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([bits, colour, 0, 0, 0])
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(RGB, "JPEG", exif=exif)


READ = {
    "1x1": (encoded(RGB.crop((0, 0, 1, 1)), "PNG"), (1, 1)),
    "1x20000": (encoded(Image.new("RGB", (20_000, 1)), "PNG"), (1, 20_000)),
    "20000x1": (encoded(Image.new("RGB", (1, 20_000)), "PNG"), (20_000, 1)),
    "gif": (encoded(RGB.convert("P"), "GIF", **FRAMES), PIXELS.shape[:2]),
    "webp": (encoded(RGB, "WEBP", lossless=True, **FRAMES), PIXELS.shape[:2]),
    "apng": (encoded(RGB, "PNG", **FRAMES), PIXELS.shape[:2]),
    "16 bits": (encoded(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257), "PNG"), PIXELS.shape[:2]),
    "cmyk": (encoded(RGB.convert("CMYK"), "JPEG"), PIXELS.shape[:2]),
    "palette with alpha": (
        encoded(RGB.convert("P"), "PNG", transparency=bytes(range(256))),
        PIXELS.shape[:2],
    ),
    **{f"orientation {n}": (turned(n), PIXELS.shape[:2]) for n in (0, 9, 65535)},
    "turned": (turned(6), PIXELS.shape[1::-1]),
}
REFUSED = {
    "nothing": (b"", "the file is empty"),
    "zeros": (bytes(100), "only zeros"),
    "header alone": (png(100, 100)[:33], ""),
    "20000x20000": (png(20_000, 20_000), "more than 178 megapixels"),
    "bomb": (png(2**31 - 1, 2**31 - 1, data=bytes(10**6)), "more than 178 megapixels"),
    "no size": (png(0, 10), ""),
    "claims more than it has": (png(9_000, 9_000), ""),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
    "photoshop": (b"8BPS\0\1" + bytes(40), "Photoshop"),
    "text": (b"not an image", "not an image"),
}


@pytest.mark.parametrize("name", READ)
def test_unusual_images_are_read(name):
    content, size = READ[name]
    pixels = to_rgb(content)
    assert pixels.shape == (*size, 3)
    assert pixels.dtype == np.uint8
    assert to_model_size(pixels, 32).shape == (32, 32, 3)


@pytest.mark.parametrize("name", ["gif", "webp", "apng"])
def test_the_first_frame_of_an_animation_is_read(name):
    first = np.asarray(RGB.convert("P").convert("RGB") if name == "gif" else RGB)
    np.testing.assert_array_equal(to_rgb(READ[name][0]), first)


@pytest.mark.parametrize("name", REFUSED)
def test_bad_images_are_refused_without_much_memory(name):
    content, reason = REFUSED[name]
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=reason) as caught:
            to_rgb(content, "photo.png")
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert "photo.png" in str(caught.value)


@pytest.mark.parametrize("name", [*READ, *REFUSED])
def test_the_same_files_as_masks(name, tmp_path):
    """Read, or refused with the name of the file."""
    path = epath.Path(tmp_path / "mask.png")
    path.write_bytes((READ.get(name) or REFUSED[name])[0])
    for read in (read_numbers, read_colours):
        try:
            result = read(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017 (both are right)
        else:
            assert name in READ
            assert (result if read is read_numbers else result[0]).ndim == 2


@pytest.mark.parametrize("name", REFUSED)
def test_bad_masks_of_predictions_are_named(name, tmp_path):
    (tmp_path / "1.png").write_bytes(REFUSED[name][0])
    with pytest.raises(UserError, match=r"1\.png"):
        read_predictions(tmp_path)["1"](MASK.shape)


def alpha_masks() -> dict[str, bytes]:
    """Masks whose shape is in the alpha channel alone: every visible pixel has the same colour."""
    alpha = Image.fromarray(MASK * 255)
    masks = {}
    for colour in ("black", "white", "red"):
        image = Image.new("RGB", alpha.size, colour)
        image.putalpha(alpha)
        masks[f"{colour}.png"] = encoded(image, "PNG")
        masks[f"{colour}.webp"] = encoded(image, "WEBP", lossless=True, exact=True)
    for level in (0, 255):
        masks[f"grey {level}.png"] = encoded(
            Image.merge("LA", [Image.new("L", alpha.size, level), alpha]), "PNG"
        )
    white_around_black = np.where(MASK[..., None] > 0, 0, 255).astype(np.uint8).repeat(3, -1)
    masks["hidden white.png"] = encoded(Image.fromarray(np.dstack([white_around_black, MASK * 255])), "PNG")
    palette = Image.fromarray(MASK, "P")
    palette.putpalette([0] * 6)
    masks["palette.png"] = encoded(palette, "PNG", transparency=0)
    return masks


@pytest.mark.parametrize("name", alpha_masks())
def test_a_shape_in_the_alpha_channel_is_the_mask(name, tmp_path):
    """Opaque pixels are the object, whatever their colour; such masks were empty or full before."""
    path = epath.Path(tmp_path / f"1.{name.rpartition('.')[2]}")
    path.write_bytes(alpha_masks()[name])
    colours, _ = read_colours(path)
    np.testing.assert_array_equal(colours > 0, MASK > 0)
    if name.startswith("grey"):
        np.testing.assert_array_equal(read_numbers(path) == 255, MASK > 0)
    if path.suffix == ".png":
        np.testing.assert_array_equal(read_predictions(tmp_path)["1"](MASK.shape), MASK > 0)


@pytest.mark.parametrize("alpha", [0, 100, 255])
def test_an_alpha_channel_without_a_shape_is_ignored(alpha, tmp_path):
    image = Image.fromarray(MASK * 255).convert("RGB")
    image.putalpha(alpha)
    (tmp_path / "1.png").write_bytes(encoded(image, "PNG"))
    np.testing.assert_array_equal(read_colours(epath.Path(tmp_path / "1.png"))[0] > 0, MASK > 0)
    np.testing.assert_array_equal(read_predictions(tmp_path)["1"](MASK.shape), MASK > 0)


def npy(header: str, version: bytes = b"\1\0") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + bytes(16)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000, 1000000000)}"), "shorter than"),
        (npy("{'descr': '<i4', 'fortran_order': False, 'shape': (100000, 100000)}"), "shorter than"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 1)}"), "object, not numbers"),
        (npy("{'descr': '<i4', 'fortran_order': False, 'shape': (0, 5)}"), "no pixels"),
        (npy("{'descr': '<i4', 'fortran_order': False, 'shape': (-1, 5)}"), "shorter than|shape"),
        (npy("__import__('os').system('true')"), "cannot be read"),
        (npy("{" * 50), "cannot be read"),
        (npy("{}", b"\7\0"), "version 7"),
        (b"", "cannot be read"),
    ],
)
def test_bad_arrays_are_refused_without_memory(content, reason, tmp_path):
    path = epath.Path(tmp_path / "mask.npy")
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=reason) as caught:
        read_numbers(path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert str(path) in str(caught.value)


def test_arrays_of_numbers_are_read(tmp_path):
    for dtype in ("u1", "i8", ">i2", "f4", "?"):
        file = io.BytesIO()
        np.save(file, MASK.astype(dtype))
        (tmp_path / "mask.npy").write_bytes(file.getvalue())
        np.testing.assert_array_equal(read_numbers(epath.Path(tmp_path / "mask.npy")), MASK)
