"""What a run writes while it trains: checkpoints, history rows, messages and a progress bar."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from tqdm import tqdm

from lesionseg.train.checkpoint import Checkpoints
from lesionseg.train.distributed import World, broadcast
from lesionseg.train.learner import Learner
from lesionseg.train.progress import Progress, Row


@dataclass(frozen=True)
class Record:
    """Where a run saves checkpoints and reports its progress.

    With `checkpoints`, it resumes where a killed run of the same key stopped. `on_epoch` is called in the first process
    with each row of the history, after a resume with the earlier rows too. `quiet` prints nothing.
    """

    checkpoints: Checkpoints | None = None
    on_epoch: Callable[[Row], None] = lambda row: None
    examine_every: int = 25  # steps between checks that losses are finite, which make Python wait for the device
    quiet: bool = False


class Logbook:
    """Writes what `record` asks for. With several processes, all call each method and the first writes and prints."""

    def __init__(self, record: Record, learner: Learner, progress: Progress, world: World):
        self.record, self.learner, self.progress, self.world = record, learner, progress, world

    def load(self, epochs: int, steps: int) -> None:
        """Resume from the checkpoint, if there is one; `epochs` of the whole run and `steps` of an epoch."""
        checkpoints, progress = self.record.checkpoints, self.progress
        if not checkpoints:
            return
        saved = broadcast(checkpoints.load() if self.world.first else None)
        if not saved:
            return
        self.learner.load_state_dict(saved)
        progress.load_state_dict(saved, with_tally=self.world.first)
        if progress.epoch > epochs:
            position = "its last epoch was done"
        elif progress.steps_done == steps:
            position = f"epoch {progress.epoch}, validation"
        else:
            position = f"epoch {progress.epoch}, step {progress.steps_done + 1} of {steps}"
        self._print(f"resuming from {checkpoints.path}: {position}")
        for row in progress.history if self.world.first else ():
            self.record.on_epoch(row)

    def save(self) -> None:
        """Write a checkpoint, if the record has a place for them."""
        if self.record.checkpoints:
            state = self.learner.state_dict() | self.progress.state_dict()
            if self.world.first:
                self.record.checkpoints.save(state)

    def save_if_due(self, epoch_ended: bool) -> None:
        if self.record.checkpoints and broadcast(self.record.checkpoints.due(epoch_ended)):
            self.save()

    def log_epoch(self, row: Row, epochs: int, images_per_second: float | None) -> None:
        """Print an epoch's losses and Dice, and pass its row to `on_epoch`."""
        if self.world.first:
            self.record.on_epoch(row)
        speed = "" if images_per_second is None else f", {images_per_second:.1f} images/s"
        self._print(
            f"epoch {row['epoch']}/{epochs}: loss {row['train_loss']:.4f}, validation loss {row['val_loss']:.4f}, "
            f"validation Dice {row['val_dice']:.4f}{speed}"
        )

    def bar(self, epochs: int, steps: int) -> tqdm:
        """A progress bar over the steps of the epoch under way; shown on a terminal, unless `quiet`."""
        shown = self.world.first and not self.record.quiet
        title, done = f"epoch {self.progress.epoch}/{epochs}", self.progress.steps_done
        return tqdm(total=steps, desc=title, initial=done, disable=None if shown else True)

    def _print(self, message: str) -> None:
        if self.world.first and not self.record.quiet:
            tqdm.write(message)
            sys.stdout.flush()  # seen at once where it goes into a pipe or a log
