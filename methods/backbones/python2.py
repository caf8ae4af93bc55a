"""Files that torch wrote under Python 2, such as DeepCluster's: an optimiser's state is kept there under addresses in
memory, numbers beyond 32 bits, which Python 2 pickles as text. torch, where it runs no code of a file, does not know
that way of writing a number; here it is written in the way of today. Nothing is built of what the file says."""

import io
import itertools
import pickletools
import shutil
from pathlib import Path

MOST = 10**6  # numbers to rewrite in a file; an optimiser's has some hundreds, and each is kept as three objects
PICKLES = 5  # of torch's older format: its mark, version, machine, content, names of storages; behind them bare numbers
WIDTH = 9  # bytes of a number: 64 bits, and the sign of one that has none


def renumbered(path: Path) -> io.BytesIO:
    """The file with its numbers as torch reads them, otherwise byte for byte; in memory, a second time beside the
    tensors that torch makes of it.

    Raises ValueError where it is no such file or has more than MOST of these numbers, OverflowError for a number beyond
    the 72 bits of WIDTH, OSError.
    """
    written, many = io.BytesIO(), 0
    with path.open("rb") as stream:
        for _ in range(PICKLES):
            start = stream.tell()
            operations = pickletools.genops(stream)  # tells them, and carries none out
            numbers = ((at, value) for code, value, at in operations if code.name == "INT" and type(value) is int)
            places = list(itertools.islice(numbers, MOST - many + 1))
            many += len(places)
            if many > MOST:
                raise ValueError(f"it has more than {MOST:,} numbers as Python 2 wrote them")
            content, done = _between(stream, start, stream.tell()), 0
            for at, value in places:
                written.write(content[done : at - start])
                written.write(b"\x8a" + bytes([WIDTH]) + value.to_bytes(WIDTH, "little", signed=True))  # LONG1
                done = content.index(b"\n", at - start) + 1
            written.write(content[done:])
        shutil.copyfileobj(stream, written)
    return written


def _between(stream: io.BufferedReader, start: int, end: int) -> bytes:
    stream.seek(start)
    return stream.read(end - start)
