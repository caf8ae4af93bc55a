"""A folder of tars as the launcher sees it: which there are, and whether their index is that of these tars.

Standard library alone; `shard_index` says what an index holds, and makes it.
"""

import contextlib
import hashlib
import os
import re
import shlex
import zlib
from pathlib import Path

from launcher.run.files import cache_folder
from methods.data import mapped

MAGIC = b"sslrun shards 2\n"
NAME = "shards-2.index"  # beside the tars, where that folder can be written to; that of the format 1, which runs from
# before go on reading, has another name
BLOCK = 512  # bytes; a tar consists of blocks
INDEXED_ALONE = 100e9  # bytes of tars, at most, that one rank indexes while all others wait
PACKED = {  # compressed files: what they begin with, what they are called, and what unpacks them
    "gzip": (b"\x1f\x8b", (".tar.gz", ".tgz"), "gunzip"),
    "bzip2": (b"BZh", (".tar.bz2", ".tbz2", ".tbz"), "bunzip2"),
    "xz": (b"\xfd7zXZ\0", (".tar.xz", ".txz"), "unxz"),
    "zstd": (b"\x28\xb5\x2f\xfd", (".tar.zst", ".tzst"), "unzstd --rm"),
}


def names(folder):
    """The tars that lie directly in `folder`, sorted."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.name.endswith(".tar") and e.name[:1] != "." and e.is_file())


def index_files(folder):
    """Where the index of `folder` may lie, the best place first."""
    key = hashlib.blake2b(os.fsencode(os.path.realpath(folder)), digest_size=12).hexdigest()
    return Path(folder) / NAME, cache_folder() / f"shards-{key}-2.index"


def fitting(folder):
    """([(file, its header, unchecked) of each index that is of the tars in `folder`, the best place first], problem).

    problem: (reason, fix) why these tars cannot be trained on, None where they can, or have no index yet.
    """
    there, found = names(folder), []
    problem = packed(folder, there)
    if not (problem or there):
        problem = "no .tar file in it", "give a folder of shards; `sslrun shards IMAGES OUT` makes one of images"
    if problem:
        return [], problem
    for file in index_files(folder):
        known = mapped.head(file, MAGIC)
        try:
            wrong = known and known["labelled"] in (True, False) and foreign(folder, known["tars"], there)
        except (LookupError, TypeError, ValueError, OverflowError):  # nothing has checked it yet
            continue
        if wrong:
            # A damaged one is none, whatever it says.
            problem = problem or (wrong if mapped.load(file, MAGIC) else None)
        elif known:
            found.append((file, known))
    if not (found or problem):
        problem = packed_inside(folder, there)
    return found, None if found else problem


def packed(folder, there):
    """(reason, fix) where some of the tars in `folder` are compressed, None where `there` are all of them."""
    beside = packed_beside(folder, there)
    # What else is called like them is one of them; any other file may be about anything.
    kinds = {_kind(name.removesuffix(".tar")) for name in there}
    mine = [each for each in beside if not there or _kind(each[2]) in kinds]
    if not mine:
        return None
    first, what, stem = mine[0]
    which = shlex.quote(os.path.join(folder, first))
    if len(mine) > 1:
        which = os.path.join(shlex.quote(os.fspath(folder)), f"*{first.removeprefix(stem)}")
    return _packed([each[0] for each in mine], what), f"`{PACKED[what][2]} {which}` makes .tar of it"


def packed_beside(folder, there):
    """[(name, how it is compressed, name without its suffix)] of the compressed tars in `folder` of which no .tar is
    `there`, sorted."""
    with os.scandir(folder) as entries:
        files = sorted(entry.name for entry in entries if entry.name[:1] != "." and entry.is_file())
    known = [
        (name, what, name.removesuffix(suffix))
        for name in files
        for what, (_, suffixes, _) in PACKED.items()
        for suffix in suffixes
        if name.endswith(suffix)
    ]
    return [each for each in known if f"{each[2]}.tar" not in there]


def packed_inside(folder, there):
    """(reason, fix) where tars are compressed in spite of their names, or None."""
    found = []
    for name in there:
        begin = b""
        with contextlib.suppress(OSError), open(os.path.join(folder, name), "rb") as stream:
            begin = stream.read(8)  # of one that cannot be read it is said when it is indexed
        found += [(name, what) for what, (magic, *_) in PACKED.items() if begin.startswith(magic)]
    if not found:
        return None
    (first, what), suffix = found[0], PACKED[found[0][1]][1][0].removeprefix(".tar")
    file = shlex.quote(os.path.join(folder, first))
    packed = shlex.quote(os.path.join(folder, first + suffix))
    more = ", and so on" if len(found) > 1 else ""
    return _packed([name for name, _ in found], what), f"`mv {file} {packed} && {PACKED[what][2]} {packed}`{more}"


def _packed(names, what):
    who = f"{names[0]!r} and {len(names) - 1} more are" if len(names) > 1 else f"{names[0]!r} is"
    return f"{who} compressed ({what}), which allows no random access"


def _kind(stem):
    return re.sub(r"\d+", "0", stem)


def told(counts):
    """What a person is told of the files in a tar, or in several: counts as an index has them, "files", "images" (files
    that are called so), "used", "labels" (of those), and "left", why -> [how many, the first]."""
    said = f"{counts['files']:,} files, {counts['images']:,} images, {counts['used']:,} of them used"
    left = [f"{many:,} {why}, the first {first}" for why, (many, first) in counts["left"].items()]
    return said + (f"; left out: {', '.join(left)}" if left else "")


def total(several):
    """The counts of many: several is [(name, counts)] of each tar."""
    whole = {"files": 0, "images": 0, "used": 0, "labels": 0, "left": {}}
    for name, counts in several:
        for key in ("files", "images", "used", "labels"):
            whole[key] += counts[key]
        for why, (many, first) in counts["left"].items():
            before, known = whole["left"].get(why, (0, f"{name}: {first}"))
            whole["left"][why] = [before + many, known]
    return whole


def foreign(folder, recorded, there):
    """(reason, fix) why an index that was made of the tars `recorded` is not that of `there`, or None.

    recorded: [name, bytes, mtime_ns, [[block, crc32], ...]] each, the last being headers of members. A tar that was cut
    short since then still is the one indexed: what is missing of it counts as broken.
    """
    fix = f"restore it, or `sslrun shards {shlex.quote(os.fspath(folder))}` makes an index of what is there now"
    missing = sorted({each[0] for each in recorded} - set(there))
    if missing:
        return f"{missing[0]!r} is gone, of which its index says what is in it", fix
    added = sorted(set(there) - {each[0] for each in recorded})
    if added:
        return f"{added[0]!r} is not in its index", fix.replace("restore it", "take it away")
    for name, size, mtime_ns, members in recorded:
        file = os.path.join(folder, name)
        now = os.stat(file)
        if (now.st_size, now.st_mtime_ns) == (size, mtime_ns):
            continue
        if now.st_size > size or not _holds(file, [m for m in members if m[0] * BLOCK + BLOCK <= now.st_size]):
            return f"{name!r} is not the file that its index was made of ({size} bytes then, {now.st_size} now)", fix
    return None


def _holds(file, members):
    """Whether the headers of `members` are where they were."""
    with open(file, "rb") as stream:
        return all(zlib.crc32(os.pread(stream.fileno(), BLOCK, block * BLOCK)) == crc for block, crc in members)
