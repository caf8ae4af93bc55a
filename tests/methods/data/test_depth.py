"""Images of more than 8 bits a channel become what they show. Right values: an image g of bytes, written by PIL,
tifffile or a few lines of zlib with its values moved to where other programs have them, is to be read as g."""

import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from launcher.compose.training import resolve
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag
from launcher.spec.runspec import freeze
from methods.data import build
from methods.data.convert import convert
from methods.data.dataset import BrokenImage, remarks
from methods.data.decoding import look
from methods.data.folder import ImageFolder
from methods.data.index import open_index
from methods.data.sets.image_folder.spec import ImageFolderData
from methods.data.shards import ImageShards
from methods.engine.job import Job

G = np.random.default_rng(0).integers(0, 256, (16, 20)).astype(np.uint8)
G[0, :2] = 0, 255
C = np.random.default_rng(1).integers(0, 256, (16, 20, 3)).astype(np.uint8)
C[0, :2] = [[0], [255]]
LOW = np.random.default_rng(2).integers(0, 256, C.shape).astype(np.uint16)  # bits below those of bytes


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def pil(array):
    def save(file):
        Image.fromarray(array).save(file)

    return save


def tiff(array, **options):
    return lambda file: tifffile.imwrite(file, array, **options)


def png(values, colour, *chunks):
    """Of uint16 [H, W, channels], with filter 1 (Sub) in odd rows and 2 (Up) in even ones: W3C PNG, 9 and 11.2."""
    height, width = values.shape[:2]
    rows = np.frombuffer(values.astype(">u2").tobytes(), np.uint8).reshape(height, -1).astype(np.int16)
    step = values[0, 0].size * 2
    left = np.pad(rows, ((0, 0), (step, 0)))[:, : rows.shape[1]]
    above = np.pad(rows, ((1, 0), (0, 0)))[:-1]
    lines = []
    for y in range(height):
        filtered = (rows[y] - (left if y % 2 else above)[y]).astype(np.uint8)
        lines.append((b"\1" if y % 2 else b"\2") + filtered.tobytes())

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(lines)))
    content = b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*each) for each in chunks) + pixels + chunk(b"IEND", b"")
    return lambda file: file.write_bytes(content)


def pgm(values, largest):
    head = b"P5 %d %d %d\n" % (*values.shape[::-1], largest)
    return lambda file: file.write_bytes(head + values.astype(">u2").tobytes())


W = G.astype(np.uint16)
CW = C.astype(np.uint16)
ALPHA = np.full((16, 20, 1), 40000, np.uint16)
EXTRA = np.dstack([CW << 8 | LOW, ALPHA])
HOLES = np.where(G == 255, np.nan, G / 254).astype(np.float32)
INKS = np.dstack([C, G])
PRINTED = np.asarray(Image.frombytes("CMYK", (20, 16), INKS.tobytes()).convert("RGB"))
CASES = {
    # whole numbers: 8, 10, 12, 14 and 16 bits
    "8 in 16.png": (pil(W), G), "10 in 16.png": (pil(W << 2 | LOW[..., 0] >> 6), G),
    "12 in 16.png": (pil(W << 4 | LOW[..., 0] >> 4), G), "14 in 16.png": (pil(W << 6 | LOW[..., 0] >> 2), G),
    "16.png": (pil(W << 8 | LOW[..., 0]), G),
    "8 in 16.tif": (pil(W), G), "12 in 16.tif": (pil(W << 4), G), "16.tif": (pil(W << 8 | LOW[..., 0]), G),
    "16 big-endian.tif": (tiff(W << 8 | LOW[..., 0], byteorder=">"), G),
    "12 big-endian.tif": (tiff(W << 4, byteorder=">"), G),
    "16 deflate.tif": (tiff(W << 8 | LOW[..., 0], compression="zlib"), G),
    "8 in int32.tif": (pil(G.astype(np.int32)), G), "12 in int32.tif": (pil(G.astype(np.int32) << 4), G),
    "uint32.tif": (tiff(G.astype(np.uint32) << 24 | 0xFFFFFF), G),
    "8 in uint32.tif": (tiff(G.astype(np.uint32)), G),
    "16 white is zero.tif": (tiff(~(W << 8), photometric="miniswhite"), G),
    "12 in 16.pgm": (pgm(W << 4 | W >> 4, 4095), G), "16.pgm": (pgm(W * 257, 65535), G),
    "8.pgm": (pil(G), G),
    # negative numbers
    "int16.tif": (tiff((G.astype(np.int16) << 4) - 1024), G), "int8.tif": (tiff((G ^ 128).view(np.int8)), G),
    "int32 negative.tif": (pil((G.astype(np.int32) - 100) * 1000), G),
    # floats
    "0 to 1.tif": (pil(G.astype(np.float32) / 255), G), "-1 to 1.tif": (pil((G / 127.5 - 1).astype(np.float32)), G),
    "0 to 255.tif": (pil(G.astype(np.float32)), G), "0 to 65535.tif": (pil(W.astype(np.float32) * 257), G),
    "-3 to 2.tif": (tiff((G / 51 - 3).astype(np.float32)), G), "0 to 8848.tif": (tiff(G / 255 * 8848.5), G),
    "float16.tif": (tiff((G / 255).astype(np.float16)), G), "float64.tif": (tiff(G / 255), G),
    "0 and 1.tif": (pil((G > 100).astype(np.float32)), (G > 100) * np.uint8(255)),
    "holes.tif": (pil(HOLES), np.rint(np.nan_to_num(HOLES) * 255)),
    # in colour
    "12 in 16 rgb.png": (png(CW << 4 | LOW >> 4, 2), C), "8 in 16 rgb.png": (png(CW, 2), C),
    "16 rgb.png": (png(CW << 8 | LOW, 2), C), "16 rgba.png": (png(EXTRA, 6), C),
    "12 grey alpha.png": (png(np.dstack([W << 4, ALPHA]), 4), G),
    "16 grey alpha.png": (png(np.dstack([W << 8 | LOW[..., 0], ALPHA]), 4), G),
    "12 in 16 rgb.tif": (tiff(CW << 4 | LOW >> 4, photometric="rgb"), C),
    "16 rgb.tif": (tiff(CW << 8 | LOW, photometric="rgb"), C),
    "16 rgb big-endian.tif": (tiff(CW << 8 | LOW, photometric="rgb", byteorder=">"), C),
    "12 rgb deflate.tif": (tiff(CW << 4 | LOW >> 4, photometric="rgb", compression="zlib"), C),
    "12 rgb planes.tif": (tiff(np.moveaxis(CW << 4, -1, 0), photometric="rgb", planarconfig="separate"), C),
    "16 rgba.tif": (tiff(EXTRA, photometric="rgb", extrasamples=["unassalpha"]), C),
    "float rgb.tif": (tiff((C / 255).astype(np.float32), photometric="rgb"), C),
    "float rgb planes.tif":
        (tiff(np.moveaxis(C.astype(np.float32), -1, 0), photometric="rgb", planarconfig="separate"), C),
    "12 in 16 cmyk.tif":
        (tiff(INKS.astype(np.uint16) << 4, photometric="separated"), PRINTED),
    # what the file says
    "sBIT.png": (png(W << 4, 0, (b"sBIT", b"\x0c")), G >> 4),
    "largest sample.tif": (tiff(W << 2, extratags=[(281, "H", 1, 4095, True)]), G >> 2),
    "range of samples.tif":
        (tiff((G / 255).astype(np.float32), extratags=[(340, "f", 1, -1.0, True), (341, "f", 1, 2.0, True)]),
         np.rint((G / 255 + 1) * 85)),
    "12 bits said.pgm": (pgm(W, 4095), np.round(G / 4095 * 65535) // 256),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("error")
def test_what_an_image_shows_is_kept(tmp_path, name):
    write, right = CASES[name]
    write(tmp_path / name)
    read = np.asarray(ImageFolder(tmp_path, "train").image(0)).astype(int)
    right = np.asarray(right).astype(int)
    assert read.shape == (16, 20, 3) and np.array_equal(read, right if right.ndim == 3 else np.dstack([right] * 3))


def test_a_dark_image_stays_dark_among_its_like(tmp_path):
    for name, array in {"a": W << 4 | W >> 4, "b": W, "c": (W << 4) // 3}.items():
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    dataset = ImageFolder(tmp_path, "train")
    for i, right in enumerate((G, G >> 4, ((W << 4) // 3) >> 4)):
        assert np.array_equal(np.asarray(dataset.image(i))[..., 0], right)
    assert dataset.remarks == [
        "images in 16-bit PNG: values from 0 to 4095 in 3 of them; 0 becomes black and 4095 white"
    ]


def test_nothing_is_cut_off_of_an_image_beyond_those_that_were_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr("methods.data.survey.DECODED", 1)
    for name, array in {"a": W, "b": W << 4, "c": W * 257}.items():
        Image.fromarray(array).save(tmp_path / f"{name}.png")
        Image.fromarray(array.astype(np.float32) + 300.5).save(tmp_path / f"{name}.tif")
    dataset = ImageFolder(tmp_path, "train")
    for i in range(len(dataset)):
        assert len(np.unique(np.asarray(dataset.image(i)))) >= len(np.unique(G)) - 1, dataset.name_of(i)


def test_floats_that_overshoot_go_by_one_range(tmp_path):
    """What a resize leaves of 0 to 1: an image that stays within goes by the same range as those beyond."""
    for name, array in {"a": G / 255 * 1.25, "b": G / 255}.items():
        Image.fromarray(array.astype(np.float32)).save(tmp_path / f"{name}.tif")
    dataset = ImageFolder(tmp_path, "train")
    assert np.array_equal(np.asarray(dataset.image(0))[..., 0], G)
    assert np.array_equal(np.asarray(dataset.image(1))[..., 0], np.rint(G / 1.25))
    assert len(dataset.remarks) == 1


def test_shards_of_a_folder_are_its_images(tmp_path):
    """Both splits, by one range."""
    for split, array in (("train", W << 4), ("val", W)):
        (tmp_path / "images" / split).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(array).save(tmp_path / "images" / split / f"{number}.png")
    convert(tmp_path / "images", tmp_path / "shards")
    for split, right in (("train", G), ("test", G >> 4)):
        for dataset in (ImageFolder(tmp_path / "images", split), ImageShards(tmp_path / "shards", split)):
            assert np.array_equal(np.asarray(dataset.image(1))[..., 0], right) and len(dataset.remarks) == 1


def test_pictures_that_are_not_read_are_counted(tmp_path):
    images = tmp_path / "images"
    for name in ("a.png", "b/a.heic", "b/c.HEIC", "b/c.jp2", "b/._c.jp2", "notes.txt", "b/c.json"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(C).save(images / name, "PNG")
    for _ in range(2):  # walked, and from its index
        dataset = ImageFolder(images, "train")
        said = "pictures that are not read: 2 that end in .heic, 1 that end in .jp2"
        assert len(dataset) == 1 and dataset.remarks == [said]
    assert convert(images, tmp_path / "shards")["not_read"] == {".heic": 2, ".jp2": 1}


def test_a_folder_of_bytes_says_nothing(tmp_path):
    Image.fromarray(C).save(tmp_path / "a.png")
    assert remarks(ImageFolder(tmp_path, "train"), None) == []


def test_a_run_says_it_once(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    Image.fromarray(W << 4).save(tmp_path / "images" / "a.png")
    spec, _ = resolve(["method=rotnet", "recipe=tiny", "data=image_folder", f"data.path={tmp_path / 'images'}"])
    train, test = (build(spec.data, "train") for _ in range(2))
    world, run = World(0, 1, torch.device("cpu")), RunDir(tmp_path)
    job = Job(run, spec, world, None, Ledger(run.path, 1, "rank0"), StopFlag(), train, (train, test))
    said = "images in 16-bit PNG: values from 0 to 4080 in one of them; 0 becomes black and 4095 white"
    assert job.notices == [said] and capsys.readouterr().out == said + "\n"


def test_an_index_of_the_old_format_is_made_anew(tmp_path, cache):
    Image.fromarray(W << 4).save(tmp_path / "a.png")
    open_index(tmp_path)
    (file,) = (cache / "sslrun").iterdir()
    content = file.read_bytes()
    file.unlink()  # what is mapped keeps its file
    file.write_bytes(b"sslrun index 3\n\0" + content[16:])
    assert open_index(tmp_path).depth and file.read_bytes() == content


@pytest.mark.parametrize("content", [
    tiff(np.zeros((8, 8, 5), np.uint16), photometric="minisblack", planarconfig="contig"),
    tiff(np.zeros((8, 8), np.complex64)), pil(np.full((8, 8), np.nan, np.float32)),
    tiff(np.zeros((3, 8, 8, 3), np.float32), volumetric=True, photometric="rgb"),
])  # fmt: skip
def test_what_is_no_picture_is_refused_by_name(tmp_path, content):
    content(tmp_path / "a.tif")
    with pytest.raises(BrokenImage) as error:
        ImageFolder(tmp_path, "train").image(0)
    assert "no colours" in str(error.value) or "not known here" in str(error.value) or "no finite" in str(error.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["12 in 16 rgb.png", "12 rgb deflate.tif", "float rgb.tif", "16.png", "float64.tif"])
def test_cut_anywhere_it_is_broken_or_there(tmp_path, name):
    write, _ = CASES[name]
    write(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    dataset = ImageFolder(tmp_path, "train")
    for size in range(0, len(content), 37):
        (tmp_path / name).write_bytes(content[:size])
        try:
            assert dataset.image(0).mode == "RGB"
        except BrokenImage as error:
            assert str(error).startswith(name)


def test_an_image_beyond_the_limit_says_the_field_that_raises_it(tmp_path):
    Image.fromarray(C).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", C.astype(np.float32), photometric="rgb")
    small = build(ImageFolderData(path=str(tmp_path), max_pixels=319), "train")
    for i, name in enumerate(("a.png", "b.tif")):
        with pytest.raises(BrokenImage) as error:
            small.image(i)
        assert str(error.value) == f"{name}: 20 x 16 pixels are more than data.max_pixels=319 allows; raise it"
    just = build(ImageFolderData(path=str(tmp_path), max_pixels=320), "train")
    assert np.array_equal(np.asarray(just.image(0)), C) and just.image(1).size == (20, 16)


def test_a_large_image_gives_no_warning(tmp_path):
    """Between PIL's two limits, of which the first warns and the second raises."""
    Image.new("1", (10_000, 9_000)).save(tmp_path / "a.png")
    with warnings.catch_warnings(action="error"), open(tmp_path / "a.png", "rb") as file:
        assert look(file).size == (10_000, 9_000)


def test_runs_from_before_keep_their_identity():
    from launcher.spec.runspec import _science

    assert "max_pixels" not in _science(freeze(ImageFolderData(path="/x")))
    assert _science(freeze(ImageFolderData(path="/x", max_pixels=10**9)))["max_pixels"] == 10**9
