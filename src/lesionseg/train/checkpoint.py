"""Checkpoints of a training run: a killed run resumes from its own, never from that of another.

Checkpoints lie in `<folder>/<key>/`, one for each member of an ensemble. The key is a digest of all that determines
the result, so that a run with other parameters, data, code, hardware or number format has another one. A finished run
removes its own. Those of unfinished runs stay, so that a return to their parameters resumes them, but only the newest
few: at the published width one holds 0.4 to 0.7 GB.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from lesionseg.common.files import atomic

OTHER_RUNS = 2  # how many unfinished ones keep their checkpoints


def key(facts: Mapping[str, object], files: Iterable[str | Path] = ()) -> str:
    """Digest (32 hex digits) of `facts`, which must be JSON, and of the content of `files`."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode())
    for path in files:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def source_files() -> list[str]:
    """The loaded modules of this package and the script that runs: the code a result depends on, sorted."""
    package = __name__.partition(".")[0]
    own = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == package}
    script = sys.modules.get("__main__")
    files = [getattr(module, "__file__", None) for module in (*own.values(), script)]
    return sorted({str(Path(file).resolve()) for file in files if file})


class Checkpoints:
    """The checkpoint of one `member` of the run `key`, written at most every `minutes`; 0: after every epoch."""

    def __init__(self, folder: str | Path, key: str, minutes: float = 0, member: int = 1):
        self._folder = Path(folder) / key
        self._file = f"checkpoint_{member}.pt"
        self._interval = minutes * 60
        self._written = time.monotonic()

    @property
    def path(self) -> Path:
        return self._folder / self._file

    def due(self, epoch_ended: bool) -> bool:
        """Whether to write one now: the interval has passed, or there is none and an epoch ended."""
        if self._interval == 0:
            return epoch_ended
        return time.monotonic() - self._written >= self._interval

    def save(self, state: Mapping) -> None:
        """Write `state` (tensors, numbers, strings, lists and dicts of them) in place of the one before."""
        with atomic(self.path) as temporary, open(temporary, "wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())  # whole before it takes the old one's name, also when the power fails
        self._written = time.monotonic()
        self._forget_old_runs()

    def load(self) -> dict | None:
        """Return the state last saved, on the CPU, or None. What cannot be read counts as none, with a warning."""
        for leftover in self._folder.glob(f".{self._file}*.tmp"):  # of a run killed while it wrote
            leftover.unlink()
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:  # torch raises many kinds on a damaged file
            print(f"{self.path}: unreadable ({type(error).__name__}), training from the start", file=sys.stderr)
            return None

    def remove(self) -> None:
        """Remove this run's checkpoints, those of all members: it has finished."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _forget_old_runs(self) -> None:
        saved: dict[Path, float] = {}  # when each other run wrote last
        for path in self._folder.parent.glob("*/checkpoint*.pt"):
            if path.parent != self._folder:
                saved[path.parent] = max(path.stat().st_mtime, saved.get(path.parent, 0))
        for run in sorted(saved, key=saved.__getitem__)[:-OTHER_RUNS]:
            shutil.rmtree(run, ignore_errors=True)


class Interruption:
    """While this context lasts, Ctrl-C and SIGTERM only set `requested`, so that the step under way can end and be
    saved; a second one interrupts at once. Outside the main thread, where Python takes no signals, or not `enabled`,
    it does nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, enabled: bool = True):
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if self._enabled:
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop_if_requested(self, save: Callable[[], None]) -> None:
        """Call `save` and raise KeyboardInterrupt, if one was asked for."""
        if self.requested:
            save()
            raise KeyboardInterrupt

    def _note(self, number: int, frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
