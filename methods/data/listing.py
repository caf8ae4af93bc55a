"""What lies in a folder of images: names of files and folders, none of which is opened."""

import errno
import os

from launcher.spec import paths

MAX_PIXELS = 178_956_970  # of an image; where PIL takes it for an attack
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
NOT_READ = (  # pictures all the same: a person is told how many there are
    ".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jpe", ".jfif", ".tga", ".exr", ".hdr", ".pfm", ".dcm", ".nii",
    ".npy", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw",
)  # fmt: skip


def absolute(path):
    """`path` made absolute, with a leading ~ (which shells leave alone after `data.path=`) expanded."""
    return str(paths.absolute(path))


def is_image_name(name):
    """Whether a file name (bytes or str) is an image's. Dot files are not: macOS leaves `._a.jpg` beside `a.jpg`."""
    text = os.fsdecode(name)
    return text.lower().endswith(IMAGE_SUFFIXES) and not text.startswith(".")


def listing(folder, left=None):
    """Yield (name, is_folder) of the images and the visible sub-folders directly in `folder` (bytes or str), unsorted.

    Symlinks are followed, so a caller that descends must remember where it has been. Dangling ones are left out.
    left: suffix -> how many files that end so are passed over, of those in NOT_READ; it is counted up.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.is_dir():
                    if entry.name[:1] not in (".", b"."):
                        yield entry.name, True
                elif is_image_name(entry.name):
                    if entry.is_file():
                        yield entry.name, False
                elif left is not None and entry.name[:1] not in (".", b"."):
                    suffix = os.path.splitext(os.fsdecode(entry.name))[1].lower()
                    if suffix in NOT_READ:
                        left[suffix] = left.get(suffix, 0) + 1
            except OSError as error:
                if error.errno != errno.ELOOP:  # a symlink to itself
                    raise


def told_not_read(left):
    """A line, or none, for a person about what `listing` passed over."""
    kinds = ", ".join(f"{many:,} that end in {suffix}" for suffix, many in sorted(left.items()))
    return [f"pictures that are not read: {kinds}"] if kinds else []


def holds_image(root):
    """Whether any image lies under `root`. Streams: a flat folder of 10^8 files costs as much as one of three."""
    pending, seen = [root], set()
    while pending:
        folder = pending.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a symlink that leads back up
            continue
        seen.add((status.st_dev, status.st_ino))
        for name, is_folder in listing(folder):
            if not is_folder:
                return True
            pending.append(os.path.join(folder, name))
    return False
