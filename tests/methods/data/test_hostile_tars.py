"""Whatever the headers of a tar say, its index is made in bounded time and memory, and names the damage."""

import io
import os
import signal
import tarfile
import tracemalloc

import pytest

from methods.data.shard_index import open_shards
from methods.data.shard_scan import scan
from methods.data.shards import ImageShards

SECONDS = 10  # of a processor
MOST = 32 << 20  # bytes of memory


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def in_time(file):
    def late(*_):
        raise AssertionError(f"it takes more than {SECONDS} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        return scan(str(file))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.fixture
def in_little_memory():
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST


def header(name, size, kind=tarfile.REGTYPE):
    """One whose checksum is right."""
    info = tarfile.TarInfo(name)
    info.size, info.type = 0, kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name, content=b"x", kind=tarfile.REGTYPE):
    return header(name, len(content), kind) + content + bytes(-len(content) % 512)


GOOD, END = member("good.png"), bytes(1024)


def indexed(tmp_path, *parts):
    """Parts are bytes, or the size of a hole."""
    file = tmp_path / "x.tar"
    with file.open("wb") as stream:
        for part in parts:
            if isinstance(part, int):
                stream.seek(part, os.SEEK_CUR)
            else:
                stream.write(part)
        stream.truncate()
    return in_time(file)


def names(found):
    return [name for name in found.arrays["blob"].tobytes().split(b".png") if name]


@pytest.mark.parametrize("size", [-1, -512, -(2**40), -(2**62)])
@pytest.mark.parametrize("name", ["a.png", "a.cls", "folder"])
def test_a_negative_size_is_damage(tmp_path, size, name):
    found = indexed(tmp_path, GOOD, header(name, size), member("b.png"), END)
    assert found.damage == ["damaged at byte 1024"] and found.files == 2


@pytest.mark.parametrize("size", ["-1", "-512", "-99999999999999999999"])
def test_a_negative_size_in_pax_records_is_damage(tmp_path, size):
    record = f" size={size}\n"
    length = len(record) + len(str(len(record) + 2))
    found = indexed(tmp_path, member("x", f"{length}{record}".encode(), tarfile.XHDTYPE), GOOD, member("b.png"), END)
    assert len(found.damage) == 1 and b"b" in b"".join(names(found))


@pytest.mark.parametrize("size", [2**33, 2**40, 2**62, 2**80])
def test_a_size_beyond_the_file_is_an_image_that_is_cut_off(tmp_path, size):
    found = indexed(tmp_path, GOOD, header("a.png", size), b"x" * 512)
    assert found.damage == ["damaged at byte 2048"]
    dataset = ImageShards(tmp_path, "train", labels="none")
    assert len(dataset) == 3 and dataset.read(0) == b"x"


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_name_of_two_gigabytes_is_not_read(tmp_path, in_little_memory, kind):
    found = indexed(tmp_path, GOOD, header("././@LongLink", 2 << 30, kind), 2 << 30, member("b.png"), END)
    # Records about the whole tar hide no image, however many.
    assert found.damage == ["damaged at byte 1024"] * (kind != tarfile.XGLTYPE) and found.files == 2


def test_an_empty_gigabyte_is_passed_over(tmp_path):
    found = indexed(tmp_path, GOOD, 1 << 30, member("b.png"), END)
    assert not found.damage and found.files == 2


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_headers_before_headers_without_end_are_damage_or_nothing(tmp_path, kind):
    content = b"11 path=ab\n" if kind != tarfile.GNUTYPE_LONGNAME else b"long"
    found = indexed(tmp_path, GOOD, member("././@LongLink", content, kind) * 5_000, member("b.png"), END)
    assert found.files == 2 and len(found.damage) <= 1


def test_a_name_of_many_folders_takes_no_longer_than_another(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("./" * 200_000 + "a.png", "./" * 200_000, "a/" * 200_000 + "a", "./" * 200_000 + "b/..png"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    found = in_time(tmp_path / "x.tar")
    assert found.used == 1 and names(found) == [b"a"] and not found.damage


def test_a_chain_of_links_is_followed_once(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for number in range(20_000):
            info = tarfile.TarInfo(f"{number}.png")
            info.type, info.linkname = tarfile.SYMTYPE, f"{number + 1}.png"
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("20000.png"))
    assert in_time(tmp_path / "x.tar").used == 20_001


def sparse(name, size, said):
    """An old GNU header of a sparse file whose real size is `said`."""
    block = bytearray(header(name, size, tarfile.GNUTYPE_SPARSE))
    block[257:265] = b"ustar  \0"
    block[483:495] = tarfile.itn(said, 12, tarfile.GNU_FORMAT)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("said", [-1, 2**29, 2**40])
def test_a_label_in_pieces_of_any_size_is_none(tmp_path, in_little_memory, said):
    found = indexed(tmp_path, sparse("good.cls", 0, said), GOOD, END)
    assert found.used == 1 and list(found.arrays["labels"]) == [-1] * len(found.arrays["labels"])


def test_a_map_of_pieces_without_end_is_damage(tmp_path):
    block = bytearray(sparse("a.png", 0, 10))
    block[482] = 1  # more of the map follows
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    more = (b"00000000001\0" * 42).ljust(504, b"\0") + b"\1" + bytes(7)
    found = indexed(tmp_path, GOOD, bytes(block), more * 20_000, member("b.png"), END)
    assert len(found.damage) == 1 and found.files == 2


@pytest.mark.parametrize("part", range(12))
def test_any_flipped_bit_of_a_header_leaves_an_index(tmp_path, part):
    """Of a tar with a long name and a link; every twelfth bit in each test."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("n" * 150 + ".png"))
        info = tarfile.TarInfo("link.png")
        info.type, info.linkname = tarfile.SYMTYPE, "n" * 150 + ".png"
        tar.addfile(info)
    whole = stream.getvalue()[:3072]
    for bit in range(part * 8, len(whole) * 8, 96 * 8 + 1):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        indexed(tmp_path, bytes(flipped), END)


def test_a_hostile_tar_is_an_index_like_any_other(tmp_path):
    indexed(tmp_path, GOOD, header("a.png", -(2**40)), member("b.png"), END)
    assert len(open_shards(tmp_path)) == 3
