"""Every way in which a file of ours can be something else when it is read: by a crash, a bad disk, or somebody's hand.

`ways` and `contents` yield (name, what does it to a path).
"""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DEEP = 100_000
NESTED = json.loads('{"a":' * 400 + "1" + "}" * 400)
ODD = (
    None, True, -1, 0, 10**30, 10**400, 1.5, float("nan"), float("inf"), 1e300, "", "x", "\ud800\x1b[2J", "[/b]",
    "../../x", [], ["x"], [[]], {}, {"x": 1}, {"x": {"x": None}}, NESTED,
)  # fmt: skip
WHOLE = (
    "",
    "5",
    "null",
    '"x"',
    "[]",
    "{}",
    "[" * DEEP,
    '{"a":' * DEEP,
    '{"a": NaN}',
    "\0" * 50,
    "\ufeff{}",
    "1" * 5000,
)

Way = tuple[str, Callable[[Path], None]]


def ways(path: Path, elsewhere: Path) -> Iterator[Way]:
    """Of a file or a folder. `elsewhere` holds a file and a folder, to which links lead: they must stay as they are."""
    yield "gone", _remove
    yield "link", lambda p: _instead(p, lambda: p.symlink_to(elsewhere / ("folder" if path.is_dir() else "file")))
    yield "link to itself", lambda p: _instead(p, lambda: p.symlink_to(p.name))
    yield "link to /dev/zero", lambda p: _instead(p, lambda: p.symlink_to("/dev/zero"))
    yield "FIFO", lambda p: _instead(p, lambda: os.mkfifo(p))
    yield "forbidden", lambda p: p.chmod(0)
    if path.is_dir():
        yield "file", lambda p: _instead(p, lambda: p.write_text("{}"))
        return
    text = path.read_bytes()
    yield "folder", lambda p: _instead(p, p.mkdir)
    yield "emptied", lambda p: p.write_bytes(b"")
    yield "truncated", lambda p: p.write_bytes(text[: len(text) // 2])
    yield "short of one byte", lambda p: p.write_bytes(text[:-1])
    yield "huge", lambda p: os.truncate(p, 2**40)
    yield "zeros", lambda p: p.write_bytes(bytes(len(text)))
    draw = random.Random(path.name)
    for number in range(3):
        bit = draw.randrange(8 * len(text)) if text else 0
        yield f"bit {number} flipped", lambda p, bit=bit: p.write_bytes(_flipped(text, bit))


def contents(path: Path) -> Iterator[Way]:
    """Of a file of JSON: what it may hold instead."""
    text = path.read_bytes() if path.is_file() else b""
    if path.suffix == ".json":
        yield from _objects(text)
    elif path.suffix == ".jsonl":
        yield from _lines(text)


def _objects(text: bytes) -> Iterator[Way]:
    for whole in WHOLE:
        yield f"holds {whole[:12]!r}", lambda p, whole=whole: p.write_text(whole)
    given = json.loads(text)
    for name, changed in _changed(given):
        yield name, lambda p, changed=changed: p.write_text(json.dumps(changed))
        if "checksum" in given:
            yield f"{name}, sealed", lambda p, changed=changed: p.write_text(json.dumps(sealed(changed)))


def _lines(text: bytes) -> Iterator[Way]:
    lines = [line for line in text.decode().splitlines() if line]
    for whole in (*WHOLE, "x" * 10**6):
        yield f"line {whole[:12]!r}", lambda p, whole=whole: p.write_text("\n".join([whole, *lines, whole, ""]))
    seen = set()
    for place, line in enumerate(lines):
        given = json.loads(line)
        if (kind := given.get("event")) in seen:
            continue
        seen.add(kind)
        for name, changed in _changed(given):
            there = [*lines[:place], json.dumps(changed), *lines[place + 1 :], ""]
            yield f"{kind} {name}", lambda p, there=there: p.write_text("\n".join(there))


def _changed(given: Any, way: str = "") -> Iterator[tuple[str, Any]]:
    """`given` with one value, at any depth, gone or another."""
    items = given.items() if isinstance(given, dict) else enumerate(given[:1])
    for key, value in list(items):

        def put(new: Any, key: Any = key) -> Any:
            copy = given.copy()
            copy[key] = new
            return copy

        copy = given.copy()
        del copy[key]
        yield f"{way}{key} gone", copy
        for odd in ODD:
            yield f"{way}{key}={str(odd)[:9]!r}", put(odd)
        if isinstance(value, dict | list):
            yield from ((name, put(inner)) for name, inner in _changed(value, f"{way}{key}."))


def sealed(stored: dict[str, Any]) -> dict[str, Any]:
    """With the checksum that fits, as whoever means harm would write it."""
    rest = {key: value for key, value in stored.items() if key != "checksum"}
    return {**rest, "checksum": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def _flipped(text: bytes, bit: int) -> bytes:
    found = bytearray(text)
    if found:
        found[bit // 8] ^= 1 << bit % 8
    return bytes(found)


def _instead(path: Path, make: Callable[[], object]) -> None:
    _remove(path)
    make()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def state_of(folder: Path) -> dict[str, Any]:
    """All that is to be seen of what a folder holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        look = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = look.st_mode, look.st_mtime_ns, look.st_uid, hashlib.sha256(content).hexdigest()
    return found
