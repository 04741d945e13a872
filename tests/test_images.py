"""Images of every mode, orientation and kind of damage."""

import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps

from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import UNREADABLE, decode, read_image, to_rgb, why_unreadable

GREY = np.arange(0, 240, 5, np.uint8).reshape(6, 8)
COLOURS = np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation."""


def save(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def pixels(content, **options):
    return np.asarray(decode(content, **options))


def reason(content):
    with pytest.raises(UNREADABLE) as error:
        decode(content)
    return why_unreadable(error.value, content)


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("1", "PNG"),
        ("L", "PNG"),
        ("P", "PNG"),
        ("RGB", "PNG"),
        ("YCbCr", "TIFF"),
        ("CMYK", "TIFF"),
        ("L", "PPM"),
    ],
)
def test_modes_that_pillow_converts(mode, form):
    image = Image.fromarray(COLOURS).convert(mode)
    # Pillow 12 does not read the uncompressed YCbCr that it writes.
    shown = pixels(save(image, form, compression="tiff_lzw" if mode == "YCbCr" else None))
    assert shown.dtype == np.uint8
    np.testing.assert_allclose(shown, np.asarray(image.convert("RGB")), atol=1)


@pytest.mark.parametrize(("form", "order"), [("PNG", "<"), ("TIFF", "<"), ("TIFF", ">"), ("PPM", "<")])
def test_sixteen_bits_are_scaled(form, order):
    levels = GREY.astype(f"{order}u2") * 257
    content = save(Image.fromarray(levels), form)
    assert (pixels(content) == GREY[..., None]).all()


@pytest.mark.parametrize(("dtype", "word"), [(np.int32, "integers"), (np.float32, "floats")])
def test_values_of_unknown_range_are_refused(dtype, word):
    assert reason(save(Image.fromarray(GREY.astype(dtype)), "TIFF")) == (
        f"its pixels are 32-bit {word} of unknown range; save it with 8 or 16 bits"
    )


def test_cielab_is_refused():
    lab = Image.frombytes("LAB", (8, 6), bytes(3 * 48))
    assert reason(save(lab, "TIFF")) == "its colours are CIELAB; save it as RGB"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_the_background(mode):
    """Whatever colour lies under it."""
    alpha = np.full((4, 4), 255, np.uint8)
    alpha[:2] = 0
    if mode == "P":
        image = Image.fromarray((alpha > 0).astype(np.uint8), "P")
        image.putpalette([9, 9, 9, 200, 200, 200])
        content = save(image, transparency=0)
    else:
        image = Image.fromarray(np.dstack([np.full((4, 4, 3), 200, np.uint8), alpha]))
        content = save(image.convert(mode))
    for background, level in (("white", 255), ("black", 0)):
        shown = pixels(content, background=background)
        assert (shown[:2] == level).all()
        assert (shown[2:] == 200).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_once(form, orientation):
    image = Image.fromarray(np.kron(COLOURS[:6, :9], np.ones((8, 8, 1), np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    shown = pixels(save(image, form, exif=exif, **options))
    expected = image.transpose(TURNS[orientation]) if orientation in TURNS else image
    np.testing.assert_allclose(shown, np.asarray(expected), atol=60 if form == "JPEG" else 0)
    assert np.abs(shown.astype(int) - np.asarray(expected)).mean() < 8


def test_damaged_exif_leaves_the_pixels():
    content = save(
        Image.fromarray(COLOURS), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(40))
    )
    assert pixels(content).shape == COLOURS.shape


def test_the_orientation_counts_where_other_exif_is_damaged():
    """The width is text here, which Pillow reads, but cannot write."""
    orientation, width = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0), struct.pack("<HHI4s", 0x0100, 2, 3, b"ab")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + orientation + width + bytes(4)
    content = save(Image.fromarray(COLOURS), "JPEG", exif=exif)
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    stored = pixels(content, upright=False)
    np.testing.assert_array_equal(pixels(content), np.rot90(stored, -1))


def test_an_image_of_pillow_is_turned_and_left_as_it_was():
    image = Image.fromarray(COLOURS)
    image.getexif()[0x0112], image.info["kept"] = 8, True
    np.testing.assert_array_equal(to_rgb(image), np.rot90(COLOURS))
    assert (image.size, image.getexif()[0x0112], image.info) == ((36, 24), 8, {"kept": True})


def test_damaged_pixels_are_refused():
    """Though the EXIF data, which a PNG has Pillow look for behind the pixels, cannot be read either."""
    content = save(Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)))
    for at in (len(content) // 3, len(content) // 2, 2 * len(content) // 3):
        broken = bytearray(content)
        broken[at] ^= 0x55
        assert reason(bytes(broken))


def test_reasons(tmp_path):
    jpeg = save(Image.fromarray(COLOURS), "JPEG")
    assert "truncated" in reason(jpeg[: len(jpeg) // 2])
    assert reason(b"") == "the file is empty"
    assert reason(bytes(200)) == "the file has only zeros"
    assert reason(b"no image, but words") == "it is not an image"
    assert "pip install pillow-heif" in reason(b"\0\0\0\x18ftypheic" + bytes(80))
    assert "SVG" in reason(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert "web page" in reason(b"<!DOCTYPE html><html>404</html>")
    with pytest.raises(UserError, match=r"^--image=.*none\.png: there is no such file$"):
        read_image(tmp_path / "none.png")
    with pytest.raises(UserError, match="it is a folder"):
        read_image(tmp_path)


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        assert reason(save(Image.new("1", (3000, 1000)))) == "it has more than 2 megapixels; reduce it"
