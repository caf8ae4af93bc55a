"""What lies in a folder of images: names of files and folders, none of which is opened."""

import errno
import os

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip


def absolute(path):
    """`path` made absolute, with a leading ~ (which shells leave alone after `data.path=`) expanded."""
    return os.path.abspath(os.path.expanduser(path))


def is_image_name(name):
    """Whether a file name (bytes or str) is an image's. Dot files are not: macOS leaves `._a.jpg` beside `a.jpg`."""
    text = os.fsdecode(name)
    return text.lower().endswith(IMAGE_SUFFIXES) and not text.startswith(".")


def listing(folder):
    """Yield (name, is_folder) of the images and the visible sub-folders directly in `folder` (bytes or str), unsorted.

    Symlinks are followed, so a caller that descends must remember where it has been. Dangling ones are left out.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.is_dir():
                    if entry.name[:1] not in (".", b"."):
                        yield entry.name, True
                elif is_image_name(entry.name) and entry.is_file():
                    yield entry.name, False
            except OSError as error:
                if error.errno != errno.ELOOP:  # a symlink to itself
                    raise


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
