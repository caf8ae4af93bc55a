"""Pictures that decoders of other programs read, and what of them is read: the pixels that PIL was given to write."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from methods.data.decoding import decode
from methods.data.survey import survey

C = np.random.default_rng(0).integers(0, 256, (16, 20, 3)).astype(np.uint8)
C[0, :2] = [[0], [255]]
OTHER = Image.fromarray(255 - C)
LONG = zlib.compress(b"x" * (2 << 20))  # PIL reads up to 1 MB of a text, and of a profile


def chunk(kind: bytes, content: bytes, *, sound: bool = True) -> bytes:
    """W3C PNG, 5.3."""
    crc = zlib.crc32(kind + content) ^ (not sound)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_chunk(png: bytes, added: bytes, *, last: bool = False) -> bytes:
    at = len(png) - 12 if last else 33  # before IEND, or behind IHDR
    return png[:at] + added + png[at:]


REMARKS = {
    "a long text": chunk(b"zTXt", b"prompt\0\0" + LONG),
    "a long text in Unicode": chunk(b"iTXt", b"prompt\0\1\0\0\0" + LONG),
    "many texts": chunk(b"zTXt", b"p\0\0" + zlib.compress(b"x" * 1_000_000)) * 70,
    "a large profile": chunk(b"iCCP", b"p\0\0" + LONG),
    "a profile that is none": chunk(b"iCCP", b"p\0\0none"),
    "a text with a wrong checksum": chunk(b"tEXt", b"a\0b", sound=False),
    "a profile with a wrong checksum": chunk(b"iCCP", b"p\0\0" + LONG[:99], sound=False),
}


@pytest.mark.parametrize("last", [False, True], ids=["before the pixels", "behind them"])
@pytest.mark.parametrize("remark", REMARKS)
def test_what_a_png_says_beside_its_pixels_does_not_keep_them_from_being_read(remark, last):
    for image in (Image.fromarray(C), Image.fromarray(C).quantize(16), Image.fromarray(C[..., 0])):
        content = with_chunk(saved(image, "PNG"), REMARKS[remark], last=last)
        assert np.array_equal(np.asarray(decode(io.BytesIO(content))), np.asarray(image.convert("RGB")))


def test_its_range_is_known_all_the_same():
    """Bits as sBIT says them, and as the other images say them."""
    twelve = saved(Image.fromarray(C[..., 0].astype(np.uint16) << 4), "PNG")
    content = with_chunk(twelve, REMARKS["a long text"])
    assert survey(3, lambda _: b"a.png", lambda _: io.BytesIO(content)) == {"16-bit PNG": [0, 255 << 4, True, 3]}
    said = with_chunk(content, chunk(b"sBIT", b"\x10"))
    assert np.array_equal(np.asarray(decode(io.BytesIO(said)))[..., 0], C[..., 0] >> 4)


def test_damaged_pixels_stay_damaged():
    content = with_chunk(saved(Image.fromarray(C), "PNG"), REMARKS["a long text"])
    with pytest.raises(OSError, match="truncated"):
        decode(io.BytesIO(content[:-200]))


FIRST = {"APNG": "PNG", "animated WebP": "WEBP", "GIF": "GIF", "TIFF of two pages": "TIFF", "MPO of two views": "MPO"}


@pytest.mark.parametrize("kind", FIRST)
def test_of_several_pictures_in_a_file_the_first_is_read(kind):
    image = Image.fromarray(C)
    lossless = {"lossless": True} if FIRST[kind] == "WEBP" else {}
    content = saved(image, FIRST[kind], save_all=True, append_images=[OTHER], **lossless)
    with Image.open(io.BytesIO(content)) as stored:
        assert stored.n_frames == 2
        right = np.asarray(stored.convert("RGB"))
    assert np.array_equal(np.asarray(decode(io.BytesIO(content))), right)
    assert kind in ("GIF", "MPO of two views") or np.array_equal(right, C)
