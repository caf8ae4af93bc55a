"""An image's file -> RGB, or in words why not."""

import errno
import io
import os
import resource
import zlib
from collections.abc import Callable
from typing import BinaryIO, TypeVar

from PIL import Image, UnidentifiedImageError

from launcher.errors import Unreadable
from methods.data import depth
from methods.data.listing import MAX_PIXELS

# Named, because PIL would otherwise try every plugin it has, and its EPS plugin runs Ghostscript on what it reads.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")

# Reading may fail with these where nothing is wrong with an image, and succeed at another time, or on another node. A
# file server that does not answer is EIO, too (nfs(5), soft).
OF_THE_MACHINE = {
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EREMOTEIO, errno.EKEYEXPIRED, errno.EKEYREVOKED,
}  # fmt: skip
PNG = b"\x89PNG\r\n\x1a\n"

Read = TypeVar("Read")

Image.MAX_IMAGE_PIXELS = None  # PIL's own limit, which warns and then raises; ours says the field that it is set by


def decode(stream: BinaryIO, ranges: depth.Depth | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """RGB, at the size stored; of an image of more than 8 bits a channel by `ranges`.

    Raises whatever damaged bytes lead a decoder to; `why_broken` says it in words.
    """
    return forgiving(stream, lambda file: _rgb(look(file, max_pixels), ranges))


def forgiving(stream: BinaryIO, read: Callable[[BinaryIO], Read]) -> Read:
    """What `read` makes of a file. Where that fails for a PNG, it is given the pixels alone: PIL refuses a file for a
    text or a colour profile that is long, or has a wrong checksum, and these change no pixel. Raises as `read`."""
    try:
        return read(stream)
    except TooLarge:
        raise
    except Exception:
        pixels = _pixels_alone(stream)
        if pixels is None:
            raise
        return read(pixels)


def _pixels_alone(stream: BinaryIO) -> BinaryIO | None:
    """A PNG without its ancillary chunks (W3C PNG, 5.4: their names begin with a small letter) but for sBIT, which says
    how many bits its values have; None of what is no PNG."""
    stream.seek(0)
    if stream.read(len(PNG)) != PNG:
        return None
    kept = [PNG]
    while len(head := stream.read(8)) == 8:
        body = stream.read(int.from_bytes(head[:4], "big"))
        crc = stream.read(4)
        sound = zlib.crc32(body, zlib.crc32(head[4:])) == int.from_bytes(crc, "big")
        if head[4:5].isupper() or (head[4:] == b"sBIT" and sound):
            kept += head, body, crc
    return io.BytesIO(b"".join(kept))


def _rgb(image: Image.Image | depth.DeepImage, ranges: depth.Depth | None) -> Image.Image:
    if isinstance(image, depth.DeepImage):
        return (ranges or depth.Depth()).to_bytes(image).convert("RGB")
    with image:
        if image.mode == "P" and "transparency" in image.info:  # straight to RGB, PIL warns once an image
            return image.convert("RGBA").convert("RGB")
        return image.convert("RGB")


def look(stream: BinaryIO, max_pixels: int = MAX_PIXELS) -> Image.Image | depth.DeepImage:
    """What the head of a file says; `stream` stays open until its pixels are read. Raises as `decode`."""
    try:
        image = Image.open(stream, formats=FORMATS)
        _check(image.size, max_pixels)
        return depth.deep(image, stream) or image
    except UnidentifiedImageError:
        stream.seek(0)
        if stream.read(4) not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            raise
        return depth.odd_tiff(stream, lambda size: _check(size, max_pixels))


def _check(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if min(size) == 0:
        raise ValueError("it has no pixels")
    if width * height > max_pixels:
        raise TooLarge(f"{width} x {height} pixels are more than data.max_pixels={max_pixels} allows; raise it")


class TooLarge(Exception):
    """More pixels than one image may have."""


def why_broken(error: Exception) -> str:
    """Why an image could not be decoded. Raises Unreadable where that is not the image's fault: to go on without it
    would train on something else than another start does."""
    if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
        where = os.fsdecode(error.filename) if error.filename else "an image"
        said = f"{where} cannot be read on {os.uname().nodename} ({os.strerror(error.errno)})"
        if error.errno == errno.EMFILE:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            said += f": {limit} files at most are open; raise that with `ulimit -n`, or give fewer method.workers"
        raise Unreadable(said) from error
    if isinstance(error, UnidentifiedImageError):  # its own text is the address of a file object
        return f"not an image of a known format ({', '.join(FORMATS)})"
    if isinstance(error, TooLarge):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"
