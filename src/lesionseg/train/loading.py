"""Batches of the processed arrays, in an order that follows from the seed and the epoch alone.

An epoch is a plan: the order of the samples is drawn from (seed, epoch), cut into steps of one global batch, each
shared out among the processes and, under gradient accumulation, among the parts of a step. Workers that read ahead,
and a resumed run, follow the same plan from any position.
"""

import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lesionseg.common.errors import InputError
from lesionseg.formats.processed import TRAINED, open_arrays, read_samples
from lesionseg.train.distributed import World

PREFETCH = 4  # batches each worker reads ahead


class Augment(Protocol):
    """(image uint8 (H, W, 3), mask uint8 (H, W), epoch, row) -> image and mask of the same shapes and dtypes."""

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, epoch: int, sample: int
    ) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Part:
    """What one process takes through the network at once: the positions `start` to `stop` of an epoch's order."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


Key = tuple[int | None, int]  # epoch, None: not augmented; row of the arrays
Batch = tuple[Tensor, Tensor]  # images uint8 (B, H, W, 3), masks uint8 (B, H, W)
Same = TypeVar("Same")


def order(seed: int, epoch: int, rows: Sequence[int]) -> np.ndarray:
    """The rows in the order of this epoch, int64 (N,): a pure function of (seed, epoch, rows)."""
    return np.random.default_rng([seed, epoch]).permutation(np.asarray(rows, dtype=np.int64))


def steps(count: int, batch_size: int, parts: int = 1, rank: int = 0, processes: int = 1) -> list[list[Part]]:
    """Cut `count` positions into steps of `batch_size` over all processes, the last one smaller, and return, for
    the process `rank`, each step's parts.

    A step has at most `parts` parts, the same number in every process, since batch norm is synchronised in each. A
    process gets an empty part where a step holds fewer samples than there are processes.
    """
    plan = []
    for start in range(0, count, batch_size):
        whole = Part(start, min(start + batch_size, count))
        share = _divide(whole, processes)[rank]
        largest_share = -(-len(whole) // processes)
        plan.append(_divide(share, min(parts, largest_share)))
    return plan


@dataclass(frozen=True)
class Data:
    """What to train and validate on: rows of the arrays. `ids` names them in messages."""

    samples: "Samples"
    train_rows: Sequence[int]
    val_rows: Sequence[int]
    ids: Sequence[str]

    def augmented(self, augment: Augment) -> "Data":
        """The same with the training images changed by `augment`."""
        return replace(self, samples=Samples(self.samples.images, self.samples.masks, augment))


def read_data(folder: Path) -> Data:
    """The rows of the splits train and val of a processed folder. Raises InputError where one is empty."""
    samples = read_samples(folder)
    rows = {split: [row for row, sample in enumerate(samples) if sample.split == split] for split in TRAINED}
    if problems := [
        f"{folder / 'samples.csv'}: no sample of the split '{split}', expected at least one; change "
        "preprocess.validation_fraction or add images"
        for split in TRAINED
        if not rows[split]
    ]:
        raise InputError(problems)
    return Data(Samples(*open_arrays(folder)), rows["train"], rows["val"], [sample.id for sample in samples])


@dataclass(frozen=True)
class Plan:
    """What one process takes in every epoch: its parts of each training step, then its parts of the validation set."""

    train: list[list[Part]]
    val: list[Part]
    images: int  # trained on in an epoch, by all processes
    batch_size: int

    @staticmethod
    def of(data: Data, batch_size: int, accumulation: int, world: World) -> "Plan":
        train = steps(len(data.train_rows), batch_size, accumulation, world.rank, world.size)
        val = [part for [part] in steps(len(data.val_rows), batch_size, 1, world.rank, world.size)]
        return Plan(train, val, len(data.train_rows), batch_size)

    def batch(self, step: int) -> Part:
        """The positions of a step's batch, of all processes together."""
        return Part(step * self.batch_size, min((step + 1) * self.batch_size, self.images))

    @property
    def smallest_batch(self) -> int:
        """Images in the last step of an epoch."""
        return len(self.batch(len(self.train) - 1))

    def keys(self, data: Data, seed: int, epochs: Iterable[int], steps_done: int) -> Iterator[list[Key]]:
        """What to load, batch after batch, through `epochs`; `steps_done` of the first are left out."""
        for epoch in epochs:
            rows = order(seed, epoch, data.train_rows)
            for parts in self.train[steps_done:]:
                for part in parts:
                    yield [(epoch, int(row)) for row in rows[part.start : part.stop]]
            for part in self.val:
                yield [(None, int(row)) for row in data.val_rows[part.start : part.stop]]
            steps_done = 0


def _divide(part: Part, pieces: int) -> list[Part]:
    """Cut into contiguous pieces whose lengths differ by at most one, the longer ones first."""
    length, longer = divmod(len(part), pieces)
    bounds = [part.start + piece * length + min(piece, longer) for piece in range(pieces + 1)]
    return [Part(start, stop) for start, stop in pairwise(bounds)]


class Samples(Dataset):
    """Rows of the arrays as batches, augmented where the key names an epoch.

    `images` uint8 (N, H, W, 3) and `masks` uint8 (N, H, W), as a rule memory-mapped: only the rows asked for are read.
    """

    def __init__(self, images: np.ndarray, masks: np.ndarray, augment: Augment | None = None):
        self.images, self.masks, self.augment = images, masks, augment

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Images uint8 (B, H, W, 3) and masks uint8 (B, H, W) of the keys, B = 0 included."""
        images = np.empty((len(keys), *self.images.shape[1:]), np.uint8)
        masks = np.empty((len(keys), *self.masks.shape[1:]), np.uint8)
        for index, (epoch, row) in enumerate(keys):
            image, mask = self.images[row], self.masks[row]
            if epoch is not None and self.augment is not None:
                image, mask = self.augment(np.asarray(image), np.asarray(mask), epoch, row)
            images[index], masks[index] = image, mask
        return torch.from_numpy(images), torch.from_numpy(masks)

    def __getstate__(self) -> dict:
        # pickled for workers that do not fork: a memory map would travel as a copy of the whole file
        mapped = {name: value.filename for name, value in vars(self).items() if isinstance(value, np.memmap)}
        return {"values": {name: value for name, value in vars(self).items() if name not in mapped}, "mapped": mapped}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state["values"])
        vars(self).update({name: np.load(path, mmap_mode="r") for name, path in state["mapped"].items()})


def batches(samples: Samples, keys: Iterable[list[Key]], device: torch.device, workers: int = 0) -> Iterator[Batch]:
    """Load one batch for each list of keys, in order, and yield it on `device`: images uint8 (B, H, W, 3) and masks
    uint8 (B, H, W).

    With `workers`, that many processes read ahead; `keys` may be a generator over a whole run, so that they
    never pause between epochs. To CUDA, a batch is copied from pinned memory while the one before is computed on.
    """
    loader = DataLoader(
        samples,
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_unchanged,  # Samples makes whole batches
        worker_init_fn=_leave_interrupts_to_the_main_process,
        pin_memory=device.type == "cuda",
        prefetch_factor=PREFETCH if workers else None,
        generator=torch.Generator(),  # else it draws from the global one
    )
    return _upload(loader, device) if device.type == "cuda" else iter(loader)


def default_workers(device: torch.device, cores: int) -> int:
    """How many workers pay: none on the CPU, where they take the network's cores, else up to eight."""
    return 0 if device.type == "cpu" else max(1, min(8, cores - 1))


def _upload(loader: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Copy one batch ahead, on a stream of its own."""
    copying = torch.cuda.Stream(device)

    def start(images: Tensor, masks: Tensor) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(copying):
            there = images.to(device, non_blocking=True), masks.to(device, non_blocking=True)
            return there, copying.record_event()

    def finish(batch: Batch, copied: torch.cuda.Event) -> Batch:
        computing = torch.cuda.current_stream(device)
        computing.wait_event(copied)  # on the GPU: Python does not wait
        for tensor in batch:
            tensor.record_stream(computing)  # its memory is not given away before the computation used it
        return batch

    ahead = None
    for batch in loader:
        current, ahead = ahead, start(*batch)
        if current:
            yield finish(*current)
    if ahead:
        yield finish(*ahead)


def _leave_interrupts_to_the_main_process(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal, and SIGTERM as a rule all of a job: the main one ends its step, for
    which it needs the workers, and then tells them to end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _unchanged(batch: Same) -> Same:
    return batch
