"""Whose the folders are: the user's alone, one group's to read, or somebody else's."""

import grp
import os
import shutil
from pathlib import Path

from launcher.errors import InputError


def make_private(folder: Path) -> None:
    """Make `folder` for what only its user may read or change: a script that will run, or keys. Raises InputError where
    the one that it lies in is somebody else's, who could put another in its place."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    refuse_foreign(folder.parent, "choose a folder of your own with runs=PATH")
    folder.mkdir(mode=0o700, exist_ok=True)


def refuse_foreign(folder: Path, fix: str) -> None:
    """Raises InputError where `folder`, or a link in its place, is somebody else's: it can be prepared before a run."""
    for owner in (folder.lstat().st_uid, folder.stat().st_uid):
        if owner != os.getuid():
            raise InputError.of("runs", folder.parent, f"{folder.name} belongs to user {owner}, not to you", fix)


def refuse_foreign_group(name: str | None) -> None:
    """Raises InputError for a group that one cannot give a folder to."""
    if name is None:
        return
    try:
        member = grp.getgrnam(name).gr_gid in (os.getegid(), *os.getgroups()) or os.geteuid() == 0
    except KeyError:
        raise InputError.of("group", name, "there is no such group", "see `id -Gn`") from None
    if not member:
        raise InputError.of("group", name, "you are not in it", "see `id -Gn`")


def share(folder: Path, group: str | None) -> None:
    """Let `group` read what is, and what will be, in `folder`."""
    if group:
        shutil.chown(folder, group=group)
        folder.chmod(0o2750)
