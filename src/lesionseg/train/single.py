"""One training at a time per folder: if DVC alone is killed, its training lives on, and a second one would collide.

Both would write the same checkpoint and history. A lock that the system releases with its process tells them apart.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lesionseg.common.errors import InputError


@contextmanager
def only_training(path: Path, enabled: bool = True) -> Iterator[None]:
    """Hold the lock `path`, which has the number of the process that holds it, while the context lasts.

    Raises InputError where another process holds it. Nothing is held where not `enabled` (the processes of a training
    but its first) or where the disk has no locks.
    """
    if not enabled:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
        path.write_text(str(os.getpid()), encoding="ascii")
    except Timeout:
        raise InputError(_met(path)) from None
    except OSError:  # a network disk without locks; Windows, which keeps others from a locked file's text
        pass
    try:
        yield
    finally:
        lock.release()


def _met(path: Path) -> str:
    process, kill = "", "end it (its process is stages/train.py)"
    with suppress(OSError, ValueError):
        number = int(path.read_text(encoding="ascii"))
        process, kill = f" as process {number}", f"`kill {number}` ends it"
    return f"{path}: another training runs in this folder{process}; {kill} and its checkpoint stays, then run again"
