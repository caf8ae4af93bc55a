"""Images of more than 8 bits a channel: what their values are, and which of them become 0 and 255.

What a file says of its range counts. Where it says nothing, the images of its kind that were looked at when the folder
was indexed say it together: whole numbers from 0 on go by the fewest bits that hold all of them (8, 10, 12, 14, 16),
numbers from 0 to 1 or from -1 to 1 by that range, all others from the smallest to the largest. So a dark image stays
dark among its like. One that goes beyond them goes by the range that holds it, too: nothing is ever cut off.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

BITS = (8, 10, 12, 14, 16)  # that cameras and scanners have
ALIKE = 16  # numbers within 1 of 0 go with others of their kind that lie within this
UNIT = " within 1 of 0"  # the kind of floats that are

_RGB, _SEPARATE, _WHITE_IS_ZERO = 2, 2, 0  # TIFF 6.0: photometric interpretations, planes one by one
_BITS, _PHOTOMETRIC, _PLANES, _FORMAT = 258, 262, 284, 339  # its tags
_LARGEST, _LOWEST, _HIGHEST = 281, 340, 341  # MaxSampleValue, SMinSampleValue, SMaxSampleValue


class Extremes(NamedTuple):
    """The values that some images hold."""

    low: float
    high: float
    whole: bool  # whether all are whole numbers
    images: int = 1

    def __or__(self, other: "Extremes") -> "Extremes":
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Extremes(low, high, self.whole and other.whole, self.images + other.images)

    @classmethod
    def of(cls, values: np.ndarray) -> "Extremes":
        """Raises ValueError where none is finite."""
        if values.dtype.kind in "ui":
            return cls(values.min().item(), values.max().item(), True)
        values = values[np.isfinite(values)]
        if not values.size:
            raise ValueError("it holds no finite value")
        low, high = values.min().item(), values.max().item()
        # Floats that are nothing but 0 and 1 are black and white.
        return cls(low, high, not (low >= -1 and high <= 1) and bool((values == np.floor(values)).all()))

    @property
    def unit(self) -> bool:
        return not self.whole and self.low >= -1 and self.high <= 1

    @property
    def ends(self) -> tuple[float, float]:
        """(black, white): what is to become 0 and 255."""
        if self.low >= 0 and self.whole and self.high < 1 << BITS[-1]:
            return 0, (1 << next(bits for bits in BITS if self.high < 1 << bits)) - 1
        if self.unit:
            return (-1 if self.low < 0 else 0), 1
        if self.low >= 0 and 127 < self.high <= 255:  # floats of 8-bit images
            return 0, 255
        return self.low, self.high


class DeepImage(NamedTuple):
    """An image of more than 8 bits a channel, not decoded yet."""

    kind: str  # such images go by one range where none says its own
    mode: str  # of PIL, of what becomes of it: "L", "RGB", "RGBA", "CMYK"
    read: Callable[[], np.ndarray]  # -> [H, W] or [H, W, channels]
    ends: tuple[float, float] | None = None  # what the file says
    inverted: bool = False  # 0 is white

    def colours(self, values: np.ndarray) -> np.ndarray:
        """Without alpha."""
        return values[..., :3] if self.mode == "RGBA" else values


class Depth:
    """The ranges of a folder's images, kind by kind."""

    def __init__(self, seen: Mapping[str, Any] | None = None):
        """seen: what `survey` found."""
        self._seen = {kind: Extremes(*each) for kind, each in (seen or {}).items()}
        self._alike = {kind for kind, span in self._seen.items() if max(-span.low, span.high) <= ALIKE}
        for kind in self._alike:
            if (unit := self._seen.pop(kind + UNIT, None)) is not None:
                self._seen[kind] |= unit

    def _known(self, image: DeepImage, own: Extremes) -> Extremes | None:
        """Of the images of its kind."""
        return self._seen.get(image.kind if image.kind in self._alike else kind_of(image, own))

    def to_bytes(self, image: DeepImage) -> Image.Image:
        """With 8 bits a channel, of `image.mode`."""
        values = image.read()
        own = Extremes.of(image.colours(values))
        if image.ends is not None:  # which hold, unless the file is wrong
            (black, white), whole = image.ends, values.dtype.kind in "ui"
            black, white = min(black, own.low), max(white, own.high)
        else:
            known = self._known(image, own)
            held = known | own if known else own
            (black, white), whole = held.ends, held.whole
        scaled = _scaled(values, black, white, whole)
        if image.inverted:
            scaled = 255 - scaled
        return Image.frombytes(image.mode, scaled.shape[1::-1], np.ascontiguousarray(scaled).tobytes())

    @property
    def remarks(self) -> list[str]:
        """For a person, a line for each kind."""
        said = []
        for kind, span in self._seen.items():
            black, white = span.ends
            some = f"{span.images} of them" if span.images > 1 else "one of them"
            held = f"values from {span.low:g} to {span.high:g} in {some}"
            said.append(f"images in {kind}: {held}; {black:g} becomes black and {white:g} white")
        return said


def kind_of(image: DeepImage, span: Extremes) -> str:
    return image.kind + UNIT if span.unit else image.kind


def deep(image: Image.Image, stream: BinaryIO) -> DeepImage | None:
    """`image`, opened from `stream`, where 8 bits do not hold its values; None where PIL's own conversion is right."""
    if image.format == "PNG":
        return _deep_png(image, stream)
    if image.format == "TIFF":
        return _deep_tiff(image, stream)
    if image.mode.startswith(("I", "F")):  # PGM, whose maxval PIL brings to 16 bits; PFM
        ends = None if image.mode == "F" else (0, 65535)
        return DeepImage(f"{image.format} of {'floats' if image.mode == 'F' else '16 bits'}", "L", _read(image), ends)
    return None


def odd_tiff(stream: BinaryIO, check: Callable[[tuple[int, int]], None]) -> DeepImage:
    """A TIFF of which PIL knows nothing: floats in colour, 16- and 64-bit floats, planes one by one. check: is given
    (width, height). Raises ValueError, or whatever a damaged one leads to."""
    import tifffile

    stream.seek(0)
    page = tifffile.TiffFile(stream, name="image").pages[0]  # its own may be bytes
    check((page.imagewidth, page.imagelength))
    samples, dtype, photometric = page.samplesperpixel, page.dtype, page.photometric
    if dtype is None or dtype.kind not in "uif" or page.imagedepth != 1:
        raise ValueError(f"a TIFF of {page.bitspersample}-bit {page.sampleformat.name} is not known here")
    if not (samples == 1 or photometric == _RGB):
        raise ValueError(f"a TIFF of {samples} channels that are no colours")

    def read() -> np.ndarray:
        values = page.asarray(maxworkers=1)
        if samples > 1 and page.planarconfig == _SEPARATE:
            values = np.moveaxis(values, 0, -1)
        return values[..., :3] if samples > 1 else values.reshape(page.imagelength, page.imagewidth)

    tags = {number: page.tags.valueof(number) for number in (_LARGEST, _LOWEST, _HIGHEST)}
    mode = "RGB" if samples > 1 else "L"
    bits = page.bitspersample
    return DeepImage(_tiff(dtype.kind, bits), mode, read, _said(tags, bits, dtype.kind), photometric == _WHITE_IS_ZERO)


def _deep_png(image: Image.Image, stream: BinaryIO) -> DeepImage | None:
    raw = image.tile[0][3] if image.tile else ""
    if not isinstance(raw, str) or not raw.endswith("16B"):
        return None
    # W3C PNG, 11.3.2.4: values of fewer bits are scaled up to fill all 16, and sBIT tells how many there were.
    ends = (0, 65535) if _has_chunk(stream, b"sBIT") else None
    if raw.startswith("LA"):  # PIL has no way to the low bytes; grey and alpha are one number of 32 bits
        image._mode = "I"
        image.tile = [_read_as(image.tile[0], "I;32B")]
        return DeepImage("16-bit PNG", "L", lambda: (_loaded(image).view(np.uint32) >> 16).astype(np.uint16), ends)
    if image.mode.startswith("I"):
        return DeepImage("16-bit PNG", "L", _read(image), ends)
    return DeepImage("16-bit PNG", image.mode, _read_wide(image, stream), ends)


def _deep_tiff(image: Image.Image, stream: BinaryIO) -> DeepImage | None:
    tags: Any = image.tag_v2
    bits, kind = tags.get(_BITS, (1,))[0], {1: "u", 2: "i", 3: "f"}.get(tags.get(_FORMAT, (1,))[0], "u")
    if bits <= 8 and kind == "u":
        return None
    read, mode = _read(image), "L"
    if image.mode in ("RGB", "RGBA", "CMYK"):
        raw = image.tile[0][3][0]
        if tags.get(_PLANES) == _SEPARATE:
            raise UnidentifiedImageError("planes apart")  # PIL takes bytes for values; tifffile reads them
        if not raw.startswith(("RGB;16", "RGBX;16", "RGBA;16", "CMYK;16")):
            return None
        read, mode = _read_wide(image, stream), image.mode
    elif bits in (8, 32) and (bits, kind) != (32, "i"):  # what PIL takes for unsigned bytes, or signed integers
        dtype = np.dtype(f"{kind}{bits // 8}")
        read = lambda: _loaded(image).view(dtype)  # noqa: E731
    # PIL has swapped black and white of bytes already, which then are no signed ones any more; there are no such files.
    inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and bits > 8
    return DeepImage(_tiff(kind, bits), mode, read, _said(tags, bits, kind), inverted)


def _said(tags: Mapping[int, Any], bits: int, kind: str) -> tuple[float, float] | None:
    """(black, white) as a TIFF says it."""
    low, high, largest = (_first(tags.get(number)) for number in (_LOWEST, _HIGHEST, _LARGEST))
    if low is not None and high is not None and low < high:
        return low, high
    if largest and kind == "u":  # the largest value in use (TIFF 6.0, page 37): of this image, so it says the bits
        return Extremes(0, largest, True).ends
    return (0, (1 << bits) - 1) if kind == "u" and 8 < bits < 16 else None


def _first(value: Any) -> float | None:
    value = value[0] if isinstance(value, tuple | list) and value else value
    return float(value) if isinstance(value, int | float) else None


def _tiff(kind: str, bits: int) -> str:
    return f"{bits}-bit TIFF" if kind == "u" else f"signed {bits}-bit TIFF" if kind == "i" else "TIFF of floats"


def _loaded(image: Image.Image) -> np.ndarray:
    image.load()  # numpy would say of damage that this is no number
    return np.asarray(image)


def _read(image: Image.Image) -> Callable[[], np.ndarray]:
    return lambda: _loaded(image)


def _read_wide(image: Image.Image, stream: BinaryIO) -> Callable[[], np.ndarray]:
    """All 16 bits of a colour image, uint16 [H, W, channels], of which PIL keeps the high bytes: told that the file has
    the other byte order, it keeps the low ones."""

    def read() -> np.ndarray:
        high = _loaded(image).astype(np.uint16)
        stream.seek(0)
        other = Image.open(stream, formats=(image.format,))
        other.tile = [_read_as(tile, _swapped(tile[3])) for tile in other.tile]
        return high << 8 | _loaded(other)

    return read


def _read_as(tile: Any, how: Any) -> Any:
    """PIL's piece of a file, with another layout of its bytes; a plain tuple before Pillow 11."""
    return tile._replace(args=how) if hasattr(tile, "_replace") else (*tile[:3], how)


def _swapped(raw: Any) -> Any:
    if not isinstance(raw, str):
        return (_swapped(raw[0]), *raw[1:])
    native = {"little": "L", "big": "B"}[sys.byteorder]
    order = raw[-1].replace("N", native)
    return raw[:-1] + {"L": "B", "B": "L"}[order]


def _has_chunk(stream: BinaryIO, wanted: bytes) -> bool:
    """Whether a PNG has this chunk before its pixels."""
    stream.seek(8)
    while len(head := stream.read(8)) == 8 and head[4:] != b"IDAT":
        if head[4:] == wanted:
            return True
        stream.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def _scaled(values: np.ndarray, black: float, white: float, whole: bool) -> np.ndarray:
    """uint8: `black` to 0, `white` to 255. Whole numbers fall into 256 equal bins, others to the nearest."""
    if white <= black:
        return np.zeros(values.shape, np.uint8)
    if values.dtype.kind in "ui" and float(black).is_integer():
        return (((values.astype(np.int64) - int(black)) * 256) // (int(white) - int(black) + 1)).astype(np.uint8)
    values = np.nan_to_num(values.astype(np.float64), nan=black, posinf=white, neginf=black)
    if whole:
        return np.floor((values - black) * (256 / (white - black + 1))).clip(0, 255).astype(np.uint8)
    return np.rint((values - black) * (255 / (white - black))).clip(0, 255).astype(np.uint8)
