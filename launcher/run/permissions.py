"""Whose the folders are: the user's alone, one group's to read, or somebody else's."""

import grp
import os
import shlex
import shutil
import stat
from pathlib import Path

from launcher.errors import InputError


def make_private(folder: Path) -> None:
    """Make `folder` for what only its user may read or change: a script that will run, or keys. Raises InputError where
    the one that it lies in is somebody else's, who could put another in its place."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, exist_ok=True)
        refuse_foreign(each, "choose a folder of your own with runs=PATH")


def refuse_foreign(folder: Path, fix: str) -> None:
    """Raises InputError where `folder`, or a link in its place, is somebody else's, or where others can write: what is
    started from it could be theirs."""
    for found in (folder.lstat(), folder.stat()):
        if found.st_uid != os.geteuid():
            reason = f"{folder.name} belongs to user {found.st_uid}, not to you"
            raise InputError.of("runs", folder.parent, reason, fix)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        reason = f"others can write into {folder.name}"
        raise InputError.of("runs", folder.parent, reason, f"`chmod go-w {shlex.quote(str(folder))}` if you trust it")


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
