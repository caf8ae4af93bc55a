"""What an image's path is called in a tar of WebDataset's layout, and back."""


def escaped(path: bytes, twin: bool) -> tuple[bytes, bytes]:
    """(key, extension) of an image's path: a key holds no dot behind its last slash, and is no other image's.

    twin: another image of its folder has this name with another suffix, and comes before it.
    """
    folder, slash, name = path.rpartition(b"/")
    stem, _, suffix = name.rpartition(b".")
    key = stem.replace(b"%", b"%25").replace(b".", b"%2E") + (b"%" + suffix if twin else b"")
    return folder + slash + key, suffix


def original(key: bytes, extension: bytes) -> bytes:
    """The inverse."""
    folder, slash, name = key.rpartition(b"/")
    name = name.removesuffix(b"%" + extension).replace(b"%2E", b".").replace(b"%25", b"%")
    return folder + slash + name + b"." + extension
