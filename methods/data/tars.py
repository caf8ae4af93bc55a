"""A folder of tars as the launcher sees it: which there are, and whether their index is that of these tars.

Standard library alone; `shard_index` says what an index holds, and makes it.
"""

import hashlib
import os
import shlex
import zlib
from pathlib import Path

from methods.data import mapped

MAGIC = b"sslrun shards 2\n"
NAME = "shards.index"  # beside the tars, where that folder can be written to
BLOCK = 512  # bytes; a tar consists of blocks
INDEXED_ALONE = 100e9  # bytes of tars, at most, that one rank indexes while all others wait


def names(folder):
    """The tars that lie directly in `folder`, sorted."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.name.endswith(".tar") and e.name[:1] != "." and e.is_file())


def index_files(folder):
    """Where the index of `folder` may lie, the best place first."""
    key = hashlib.blake2b(os.fsencode(os.path.realpath(folder)), digest_size=12).hexdigest()
    return Path(folder) / NAME, mapped.cache_folder() / f"shards-{key}.index"


def fitting(folder):
    """([(file, its header, unchecked) of each index that is of the tars in `folder`, the best place first], problem).

    problem: (reason, fix) why these tars cannot be trained on, None where they can, or have no index yet.
    """
    there, found, problem = names(folder), [], None
    if not there:
        return [], ("no .tar file in it", "give a folder of shards; `sslrun shards IMAGES OUT` makes one of images")
    for file in index_files(folder):
        known = mapped.head(file, MAGIC)
        wrong = known and foreign(folder, known["tars"], there)
        if wrong:
            problem = problem or wrong
        elif known:
            found.append((file, known))
    return found, None if found else problem


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
