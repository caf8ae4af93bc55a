"""Images and tars as the world has them. Right values: what PIL reads, the pixels that a lossless format was given, or
what the format's standard says; of tars, the files and labels that went into them."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from methods.data.folder import ImageFolder
from methods.data.shards import ImageShards

C = np.random.default_rng(1).integers(0, 256, (16, 20, 3)).astype(np.uint8)
W = C[..., 0].astype(np.uint16)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def picture(mode="RGB"):
    return Image.frombytes("LAB", (20, 16), C.tobytes()) if mode == "LAB" else Image.fromarray(C).convert(mode)


def save(mode="RGB", **options):
    return lambda file: picture(mode).save(file, **options)


def content(told):
    return lambda file: file.write_bytes(told)


def by_pil(file):
    with Image.open(file) as stored:
        return stored.convert("RGB")


def frames(mode="RGB", **options):
    return save(mode, save_all=True, append_images=[Image.fromarray(255 - C).convert(mode)], **options)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    return exif


PALETTE = picture("P").convert("RGB")
# name of the file: (what writes it, its pixels or what reads them)
IMAGES = {
    f"{mode}.{suffix}": (save(mode), by_pil)
    for mode, suffixes in {
        "RGB": ("jpg", "png", "bmp", "webp", "tif", "ppm"), "L": ("jpg", "png", "bmp", "tif", "gif", "pgm"),
        "RGBA": ("png", "webp", "tif"), "LA": ("png", "tif"), "P": ("png", "gif", "tif", "bmp"),
        "1": ("png", "tif", "bmp", "pbm"), "CMYK": ("jpg", "tif"), "YCbCr": ("jpg", "tif"), "LAB": ("tif",),
    }.items()
    for suffix in suffixes
} | {
    "progressive.jpg": (save(progressive=True), by_pil), "half the colours.jpeg": (save(subsampling=2), by_pil),
    "turned.jpg": (save(exif=turned()), by_pil), "turned.png": (save(exif=turned()), C),  # as torchvision: left alone
    "profile.jpg": (save(icc_profile=b"no profile"), by_pil), "a photograph.JPG": (save(), by_pil),
    "said to be one.png": (save(format="JPEG"), by_pil), "a.b.c.PnG": (save(), C), "A.TIFF": (save(), C),
    "transparent palette.png": (save("P", transparency=bytes([0, 128])), PALETTE),
    "a transparent colour.png": (save("P", transparency=3), PALETTE), "moves.gif": (frames("P"), PALETTE),
    "transparent.gif": (save("P", transparency=3), PALETTE), "moves.png": (frames(), C), "pages.tif": (frames(), C),
    "lossless.webp": (save(lossless=True), C), "moves.webp": (frames(lossless=True), C), "raw.bmp": (save(), C),
    "lzw.tif": (save(compression="tiff_lzw"), C), "deflate.tif": (save(compression="tiff_adobe_deflate"), C),
    "jpeg.tif": (save(compression="jpeg"), by_pil), "fax.tif": (save("1", compression="group4"), by_pil),
    "all 16 bits.png": (lambda file: Image.fromarray(W * 257).save(file), np.dstack([C[..., 0]] * 3)),
    "all 16 bits.tif": (lambda file: Image.fromarray(W * 257).save(file), np.dstack([C[..., 0]] * 3)),
    "text.ppm": (content(b"P3\n# red, blue\n2 1\n255\n255 0 0 0 0 255\n"), [[[255, 0, 0], [0, 0, 255]]]),
    "text.pgm": (content(b"P2 2 1 255 0 200"), [[[0] * 3, [200] * 3]]),
    "text.pbm": (content(b"P1 2 1 1 0"), [[[0] * 3, [255] * 3]]),  # in which 1 is black
    "any.pnm": (content(b"P6 1 1 255 \1\2\3"), [[[1, 2, 3]]]),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.filterwarnings("error")
def test_the_pixels_are(tmp_path, name):
    write, right = IMAGES[name]
    write(tmp_path / name)
    image = ImageFolder(tmp_path, "train").image(0)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(right(tmp_path / name) if callable(right) else right))


def encoded(kind, **options):
    stream = io.BytesIO()
    picture().save(stream, kind, **options)
    return stream.getvalue()


PNG, JPEG, PPM = encoded("PNG"), encoded("JPEG"), encoded("PPM")
LONG = "deep/" * 20 + "n" * 80  # longer than a header's 100 bytes, and two parts for ustar
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
OTHERS = [
    ("./a/x.jpg", JPEG), ("./a/x.json", b"{}"), ("./a/x.CLS", b" 2\n"), ("./a/x.s.png", PNG),
    (f"{LONG}.txt", b"caption"), (f"{LONG}.cls", b"1"), (f"{LONG}.JPEG", JPEG), ("notes", b"?"),
    ("b.c/y.png", PNG), ("b.c/y.cls", b"0"), ("b.c/y.webp", PNG), ("b.c/.hidden.png", PNG),
]  # fmt: skip
WANTED = {"a/x.jpg": 2, f"{LONG}.JPEG": 1, "b.c/y.png": 0}
# (format, members, {image: label}); without labels None
TARS = {
    "sorted": ("gnu", [("0.cls", b"1"), ("0.png", PNG), ("1.cls", b"0"), ("1.png", PNG)], {"0.png": 1, "1.png": 0}),
    "images first": ("pax", [("0.jpg", JPEG), ("0.cls", b"2"), ("1.jpg", JPEG), ("1.cls", b"1")],
                     {"0.jpg": 2, "1.jpg": 1}),
    "with words": ("gnu", [("0.txt", b"a cat"), ("0.jpeg", JPEG), ("1.txt", b"a dog"), ("1.jpeg", JPEG)],
                   {"0.jpeg": None, "1.jpeg": None}),
    "with json": ("gnu", [("0.jpg", JPEG), ("0.json", b'{"caption": "x", "label": 4}')], {"0.jpg": None}),
    "with both": ("gnu", [("0.cls", b"1"), ("0.json", b"{}"), ("0.ppm", PPM), ("0.txt", b"x")], {"0.ppm": 1}),
    "many suffixes": ("gnu", [("a.png", PNG), ("b.jpg", JPEG), ("c.jpeg", JPEG), ("d.ppm", PPM), ("e.PNG", PNG)],
                      dict.fromkeys(("a.png", "b.jpg", "c.jpeg", "d.ppm", "e.PNG"))),
    "in folders": ("ustar", [("cat/0.png", PNG), ("dog/0.png", PNG)], {"cat/0.png": None, "dog/0.png": None}),
    "of others, ustar": ("ustar", OTHERS, WANTED),
    "of others, gnu": ("gnu", [*OTHERS, ("ünï/図.png", PNG), ("ünï/図.cls", b"2")], WANTED | {"ünï/図.png": 2}),
    "of others, pax": ("pax", [*OTHERS, ("ünï/図.png", PNG), ("ünï/図.cls", b"2")], WANTED | {"ünï/図.png": 2}),
    "empty": ("gnu", [], {}),
}  # fmt: skip


def pack(file, layout, members):
    options = {"pax_headers": {"comment": "of all"}} if layout == "pax" else {}
    with tarfile.open(file, "w", format=FORMATS[layout], **options) as archive:
        for name, told in members:
            info = tarfile.TarInfo(name)
            info.size = len(told)
            archive.addfile(info, io.BytesIO(told))


@pytest.mark.parametrize("case", TARS)
def test_a_tar_holds(tmp_path, case):
    layout, members, right = TARS[case]
    pack(tmp_path / "x.tar", layout, members)
    labelled = any(right.values())
    pack(tmp_path / "y.tar", "gnu", [*([("z.cls", b"0")] if labelled else []), ("z.png", PNG)])
    found = {}
    for split in ("train", "test"):
        dataset = ImageShards(tmp_path, split)
        for index in range(len(dataset)):
            label = None if dataset.labels is None else int(dataset.classes[dataset.labels[index]])
            found[dataset.name_of(index)] = label
            assert dataset.image(index).size == (20, 16)
    ours = {f"x.tar: {name}": label for name, label in right.items()}
    assert found == {**ours, "y.tar: z.png": 0 if labelled else None}
