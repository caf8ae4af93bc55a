"""Attention as pictures: each head by itself, all of them in colours, and what they keep beside the truth."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

VOID = 255  # in the masks of PASCAL VOC: neither object nor background
SMALLEST, WIDEST = 128, 1600  # pixels: of the longer side of a part, at least, and of a whole picture
LARGEST = 560  # of a part's longer side where few stand side by side
GAP, CAPTION, FONT, TILE = 6, 20, 13, 10  # pixels
INK = "#24292f"
GLOW = ("#000004", "#420a68", "#932667", "#dd513a", "#fca50a", "#fcffa4")  # of the least attention to the most
# Of the first heads, or objects: told apart by people who see few colours, too (Okabe and Ito 2008).
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#cc79a7", "#f0e442")
STRONG, FAINT = 0.85, 0.75  # of a colour over an image, at most; the power of attention that it goes by


def of_heads(photo: Image.Image, maps: np.ndarray, kept: np.ndarray) -> Image.Image:
    """RGB: the image and beside it the attention of each head; below, all heads in colours, and of each what it keeps.

    maps: float32 [heads, rows, columns]; kept: bool, of the same shape.
    """
    side = _side(photo, 1 + len(maps), SMALLEST, 3 * SMALLEST)
    photo = _resized(photo, side)
    above = [_glowing(each, photo.size) for each in maps]
    below = [_lit(photo, each) for each in kept]
    names = [f"head {number}" for number in range(len(maps))]
    return _sheet([[photo, *above], [coloured(photo, maps, kept), *below]], ["image", *names])


def in_colours(photo: Image.Image, maps: np.ndarray, kept: np.ndarray) -> Image.Image:
    """RGB: the image, and beside it what each head keeps in a colour of its own (thesis, Figure 5.4). Arguments as of
    `of_heads`."""
    photo = _resized(photo, _side(photo, 2, 2 * SMALLEST, LARGEST))
    legend = [(f"head {number}", colour(number)) for number in range(len(maps))]
    return _sheet([[photo, coloured(photo, maps, kept)]], (), legend)


def beside_truth(photo: Image.Image, mask: np.ndarray, kept: np.ndarray, values: Sequence[float]) -> Image.Image:
    """RGB: the image, the objects of `mask`, and what the best head keeps of it (thesis, Figure 5.5).

    mask: uint8 [H, W], 0 background and VOID neither; kept: bool [heads, rows, columns]; values: Jaccard similarity of
    each head, 0 to 1.
    """
    photo, best = _resized(photo, _side(photo, 3, 2 * SMALLEST, LARGEST)), int(np.argmax(values))
    parts = [photo, _true(photo, mask), _lit(photo, kept[best])]
    return _sheet([parts], ["image", "truth", f"head {best}, Jaccard {100 * values[best]:.1f} %"])


def colour(number: int) -> tuple[int, int, int]:
    """Of a head or an object, from 0 on; those of any two differ."""
    if number < len(COLOURS):
        return _rgb(COLOURS[number])
    hue = (number * 0.618034) % 1  # the golden section: far from those just before
    return tuple(round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.75, 0.6 + 0.4 * (number % 3) / 2))


def coloured(photo: Image.Image, maps: np.ndarray, kept: np.ndarray) -> Image.Image:
    """The image in grey, over it what each head keeps: the more attention, the stronger its colour; where several
    meet, their mean by attention."""
    strength = []
    for values, inside in zip(maps, kept, strict=True):
        share = np.where(inside, values / max(float(values.max()), 1e-30), 0).astype(np.float32)
        strength.append(np.asarray(Image.fromarray(share).resize(photo.size, Image.Resampling.BILINEAR)))
    strength = np.stack(strength)[..., None]  # [heads, H, W, 1]
    colours = np.array([colour(number) for number in range(len(maps))], np.float32)[:, None, None]
    mixed = (strength * colours).sum(0) / np.maximum(strength.sum(0), 1e-6)
    cover = STRONG * strength.max(0) ** FAINT
    grey = np.asarray(photo.convert("L"), np.float32)[..., None] * 0.75 + 48
    return _image(grey * (1 - cover) + mixed * cover)


def _true(photo: Image.Image, mask: np.ndarray) -> Image.Image:
    """Each object in a colour over the image, what is void in grey, all else pale."""
    mask = np.asarray(Image.fromarray(mask).resize(photo.size, Image.Resampling.NEAREST))
    pixels = np.asarray(photo, np.float32)
    shown = _pale(pixels)
    for number, value in enumerate(np.setdiff1d(mask, (0, VOID))):
        shown = np.where((mask == value)[..., None], 0.5 * pixels + 0.5 * np.array(colour(number)), shown)
    return _image(np.where((mask == VOID)[..., None], 150.0, shown))


def _lit(photo: Image.Image, kept: np.ndarray) -> Image.Image:
    """The image where a head keeps it, all else pale."""
    inside = Image.fromarray(255 * kept.astype(np.uint8)).resize(photo.size, Image.Resampling.NEAREST)
    pixels = np.asarray(photo, np.float32)
    return _image(np.where(np.asarray(inside)[..., None] > 0, pixels, _pale(pixels)))


def _pale(pixels: np.ndarray) -> np.ndarray:
    return pixels / 5 + 196


def _glowing(values: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """From the least attention, dark, to the most, bright."""
    spread = float(values.max() - values.min()) or 1.0
    places = (values - values.min()) / spread * (len(GLOW) - 1)
    steps = np.array([_rgb(each) for each in GLOW], np.float32)
    channels = [np.interp(places, np.arange(len(GLOW)), steps[:, channel]) for channel in range(3)]
    return _image(np.stack(channels, axis=-1)).resize(size, Image.Resampling.NEAREST)


def _sheet(
    rows: Sequence[Sequence[Image.Image]],
    names: Sequence[str],
    legend: Sequence[tuple[str, tuple[int, int, int]]] = (),
) -> Image.Image:
    """Parts of one size in rows, `names` above the columns, a `legend` below."""
    width, height = rows[0][0].size
    whole = len(rows[0]) * (width + GAP) + GAP
    font, top = ImageFont.load_default(FONT), CAPTION if names else GAP
    lines = _lines(legend, font, whole - 2 * GAP)
    canvas = Image.new("RGB", (whole, top + len(rows) * (height + GAP) + CAPTION * len(lines)), "white")
    draw = ImageDraw.Draw(canvas)
    for column, name in enumerate(names):
        left = GAP + column * (width + GAP)
        draw.text((left + width / 2, CAPTION / 2), name, fill=INK, font=font, anchor="mm")
    for row, parts in enumerate(rows):
        for column, part in enumerate(parts):
            canvas.paste(part, (GAP + column * (width + GAP), top + row * (height + GAP)))
    for number, line in enumerate(lines):
        middle = canvas.height - CAPTION * (len(lines) - number - 0.5) - GAP / 2
        for left, name, shade in line:
            at = GAP + left
            draw.rectangle((at, middle - TILE / 2, at + TILE, middle + TILE / 2), fill=shade)
            draw.text((at + 1.5 * TILE, middle), name, fill=INK, font=font, anchor="lm")
    return canvas


def _lines(legend: Sequence[tuple[str, tuple[int, int, int]]], font: ImageFont.FreeTypeFont, room: float) -> list[list]:
    """(left, name, colour) of each entry, in lines that are no wider than `room`."""
    lines: list[list] = []
    left = room
    for name, shade in legend:
        needed = 3 * TILE + font.getlength(name)
        if left + needed > room:
            lines.append([])
            left = 0.0
        lines[-1].append((left, name, shade))
        left += needed
    return lines


def _side(photo: Image.Image, columns: int, least: int, most: int) -> int:
    """Pixels of the longer side of each part, so that `columns` of them are no wider than a picture should be."""
    room = (WIDEST - GAP) / columns - GAP
    widest = int(room * max(photo.size) / photo.width)
    return min(max(least, min(max(photo.size), most)), widest)


def _resized(photo: Image.Image, side: int) -> Image.Image:
    scale = side / max(photo.size)
    size = tuple(max(1, int(each * scale + 1e-6)) for each in photo.size)  # no part wider than its room
    return photo.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _rgb(text: str) -> tuple[int, int, int]:
    return tuple(int(text[start : start + 2], 16) for start in (1, 3, 5))
