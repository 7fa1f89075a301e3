"""Files that stand for a picture stored elsewhere that was not fetched: git-LFS, git-annex, broken links."""

import os
import stat
from pathlib import Path

POINTER = 1024  # bytes: git-LFS and git-annex pointers are shorter


def all_unfetched(folder: Path) -> list[str]:
    """A line for every file below a folder that stands for one elsewhere; hidden files and directories are skipped."""
    found = []
    for directory, directories, files in os.walk(folder):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        paths = (Path(directory, name) for name in sorted(files) if not name.startswith("."))
        found += [f"{path}: {reason}" for path in paths if (reason := unfetched(path))]
    return found


def unfetched(path: Path) -> str | None:
    """What an unfetched file is, and the command that fetches the picture; None if the file is really there."""
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)
        if "/annex/objects/" in target.replace("\\", "/"):
            return f"is a git-annex link without its content; fetch it: git annex get {path}"
        return f"is a link to {target}, which does not exist; put the file there"
    try:
        status = path.stat()
        if status.st_size > POINTER or not stat.S_ISREG(status.st_mode):  # reading a pipe would block for ever
            return None
        start = path.read_bytes()[:POINTER]
    except OSError:
        return None  # no permission: reported elsewhere
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return "is a git-LFS pointer, not the picture itself; fetch it: git lfs pull"
    if start.startswith(b"/annex/objects/"):
        return f"is a git-annex pointer, not the picture itself; fetch it: git annex get {path}"
    return None
