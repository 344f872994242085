"""Pictures: the numbers of diffusers, and 30 files that want to hurt."""

import io
import math
import os
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from bounded import guarded
from darkroom.errors import DarkroomError
from darkroom.images import (
    ImageError,
    grid,
    labelled_grid,
    open_image,
    peek,
    to_pictures,
    to_tensor,
)


def noise(width: int = 40, height: int = 30, mode: str = "RGB", seed: int = 0) -> Image.Image:
    channels = {"RGB": (3,), "RGBA": (4,), "L": ()}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)
    return Image.fromarray(pixels)


def encoded(picture: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes, data: bytes | None = None) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = (b"\0" + b"\0" * (3 * width)) * height if data is None else data
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + body + chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    good = encoded(noise(), "JPEG")
    at = good.index(b"\xff\xc0") + 5
    return good[:at] + struct.pack(">HH", height, width) + good[at + 4 :]


def vp8x(width: int, height: int, flags: int = 2) -> bytes:
    def little(value: int) -> bytes:
        return value.to_bytes(3, "little")

    body = bytes([flags, 0, 0, 0]) + little(width - 1) + little(height - 1)
    body = b"WEBPVP8X" + struct.pack("<I", 10) + body + b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def exif_loop() -> bytes:
    """An IFD whose Exif pointer leads to itself."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 8)


def exif_huge() -> bytes:
    """An orientation of four billion values."""
    entry = struct.pack("<HHII", 0x0112, 4, 0xFFFFFFFF, 26)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)


def moving(format: str) -> bytes:
    frames = [noise(seed=seed) for seed in range(3)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=50)


BOMBS = {
    "png of 900 megapixels": lambda: png(30_000, 30_000, data=b""),
    "png of 108 megapixels": lambda: png(12_000, 9_000, data=b""),
    "png of 51 megapixels": lambda: png(10_200, 5_000, data=b""),
    "png of 2^31 columns": lambda: png(2**31 - 1, 1, data=b""),
    "png of no columns": lambda: png(0, 10, data=b""),
    "png text bomb": lambda: png(
        4, 4, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * (64 << 20), 9))
    ),
    "png many text bombs": lambda: png(
        4,
        4,
        *[chunk(b"zTXt", b"a%d\0\0" % i + zlib.compress(b"\0" * 1_000_000)) for i in range(90)],
    ),
    "png international text bomb": lambda: png(
        4, 4, chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"\0" * (64 << 20), 9))
    ),
    "png cut in its pixels": lambda: encoded(noise())[:-900],
    "png cut in its header": lambda: encoded(noise())[:20],
    "png without pixels": lambda: png(2_000, 2_000, data=b""),
    "png with a lying chunk": lambda: encoded(noise())[:33] + b"\xff\xff\xff\xffIDAT",
    "png with damaged pixels": lambda: encoded(noise()).replace(b"IDAT", b"IDAT\x99\x99", 1),
    "png animation": lambda: moving("PNG"),
    "jpeg of 4 gigapixels": lambda: jpeg(65_500, 65_500),
    "jpeg of 60 megapixels": lambda: jpeg(10_000, 6_000),
    "jpeg cut": lambda: encoded(noise(200, 200), "JPEG")[:900],
    "jpeg header only": lambda: b"\xff\xd8\xff\xe0",
    "webp canvas of 268 megapixels": lambda: vp8x(16_383, 16_383),
    "webp canvas of 2^48 pixels": lambda: vp8x(1 << 24, 1 << 24),
    "webp small and empty": lambda: vp8x(16, 16, flags=0),
    "webp animation": lambda: moving("WEBP"),
    "webp cut": lambda: encoded(noise(200, 200), "WEBP")[:300],
    "gif": lambda: encoded(noise(), "GIF"),
    "bmp": lambda: encoded(noise(), "BMP"),
    "tiff": lambda: encoded(noise(), "TIFF"),
    "ppm of a billion columns": lambda: b"P6\n1000000000 1000000000\n255\n",
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9999 9999\n",
    "empty": lambda: b"",
    "zeros": lambda: bytes(5000),
    "text": lambda: b"version https://git-lfs.github.com/spec/v1\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_with_one_line(name, tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    path.write_bytes(BOMBS[name]())
    areas, new = [0], Image.core.new

    def counted(mode, size):
        areas.append(math.prod(size))
        return new(mode, size)

    monkeypatch.setattr(Image.core, "new", counted)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError) as caught, guarded():
            open_image(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(areas) <= 50_000_000  # pixels that Pillow made room for
    assert peak < 150 << 20  # bytes that Python did
    message = str(caught.value)
    assert message.startswith("picture.png: ")
    assert len(message) <= 200
    assert message.isprintable()
    assert isinstance(caught.value, DarkroomError)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("exif", [exif_loop(), exif_huge(), b"Exif\0\0junk", b""])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_is_read_past_or_refused(exif, format):
    data = encoded(noise(), format, exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert open_image(data).size == (40, 30)
        except ImageError:
            pass


def test_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("pipe.png", "missing.png", ".", "a\0b", "x" * 300):
        with pytest.raises(ImageError):
            open_image(tmp_path / name)
    huge = tmp_path / "huge.png"
    with open(huge, "wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(ImageError, match="too large"):
        open_image(huge)


def test_message_hides_control_characters(tmp_path):
    path = tmp_path / "a\nb\x1b[31m.png"
    path.write_bytes(b"no picture")
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_formats(format, tmp_path):
    options = {} if format != "WEBP" else {"lossless": True}
    path = tmp_path / "a.any"
    path.write_bytes(encoded(noise(), format, **options))
    opened = open_image(path)
    assert opened.mode == "RGB"
    assert opened.size == (40, 30)
    assert peek(path).format == format
    if format != "JPEG":
        assert np.array_equal(np.array(opened), np.array(noise()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation):
    picture = noise()
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_image(encoded(picture, exif=exif))
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    expected = picture if orientation == 1 else picture.transpose(turns[orientation])
    assert np.array_equal(np.array(opened), np.array(expected))


def test_transparency_lies_on_white():
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert open_image(encoded(clear)).getpixel((0, 0)) == (255, 255, 255)


def test_16_bits_are_scaled():
    deep = Image.fromarray(np.array([[0, 32768, 65535]], np.uint16))
    assert [p[0] for p in np.array(open_image(encoded(deep)))[0]] == [0, 128, 255]


def test_tensor_equals_diffusers():
    from diffusers.image_processor import VaeImageProcessor

    theirs = VaeImageProcessor()
    picture = noise(70, 50)
    for size in (None, (64, 96), (16, 24)):
        height, width = size or (48, 64)
        ours = to_tensor(picture, size or (48, 64))
        assert torch.equal(ours, theirs.preprocess(picture, height=height, width=width))
    plain = to_tensor(picture)
    assert plain.shape == (1, 3, 50, 70)
    assert plain.dtype == torch.float32
    assert plain.min() == -1
    assert plain.max() == 1


def test_pictures_equal_diffusers():
    from diffusers.image_processor import VaeImageProcessor

    images = torch.randn(3, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 0.7
    ours = to_pictures(images)
    theirs = VaeImageProcessor().postprocess(images, "pil")
    assert [np.array(p).tolist() for p in ours] == [np.array(p).tolist() for p in theirs]
    assert len(to_pictures(images.bfloat16())) == 3


def test_there_and_back():
    picture = noise()
    assert np.array_equal(np.array(to_pictures(to_tensor(picture))[0]), np.array(picture))
    with pytest.raises(ValueError, match="shape"):
        to_pictures(torch.zeros(3, 8, 8))


def test_grid():
    pictures = [Image.new("RGB", (4, 3), (value, 0, 0)) for value in range(5)]
    sheet = grid(pictures)
    assert sheet.size == (12, 6)
    assert sheet.getpixel((4, 3)) == (4, 0, 0)
    assert sheet.getpixel((8, 3)) == (255, 255, 255)
    assert grid(pictures, 5).size == (20, 3)
    assert grid(pictures, 9).size == (20, 3)
    with pytest.raises(ValueError, match="at least one"):
        grid([])


def test_labelled_grid():
    pictures = [Image.new("RGB", (40, 20), (0, 0, 40 * i)) for i in range(6)]
    plain = labelled_grid(pictures, 3)
    assert plain.size == (3 * 44, 2 * 24)
    assert plain.getpixel((44, 24)) == (0, 0, 160)
    words = labelled_grid(pictures, 3, titles=["1", "2", "3"], rows=["up", "down"])
    left = words.width - 3 * 44
    assert words.height == 2 * 24 + 14  # one line of titles
    assert words.getpixel((left + 44, 14)) == (0, 0, 40)
    assert np.asarray(words)[:14, left:].min() < 128  # something is written over the columns,
    assert np.asarray(words)[14:, :left].min() < 128  # and beside the rows
    each = labelled_grid(pictures, 3, titles=list("abcdef"))
    assert each.height == 2 * (24 + 14)
    assert each.getpixel((0, 14 + 24 + 14)) == (0, 0, 120)
    assert labelled_grid(pictures, 3, scale=2).size == (3 * 84, 2 * 44)
    wide = labelled_grid(pictures, 1, titles=["a title that is much wider than the picture"])
    assert wide.width > 100
    for wrong in ({"titles": ["one"]}, {"rows": ["one"]}):
        with pytest.raises(ValueError, match="got"):
            labelled_grid(pictures, 3, **wrong)
    with pytest.raises(ValueError, match="at least one"):
        labelled_grid([])


def test_looking_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, darkroom.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_jpeg_of_few_bytes_and_many_pixels(tmp_path):
    """A file that is cut short decodes to grey: 49 million pixels of 1 kB."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, "JPEG", progressive=True)
    data = bytearray(file.getvalue())
    at = data.index(b"\xff\xc2") + 5
    data[at : at + 4] = (7000).to_bytes(2, "big") * 2
    with pytest.raises(ImageError, match=r"7000x7000 pixels in \d+ bytes"):
        open_image(bytes(data))
