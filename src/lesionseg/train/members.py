"""Several trainings that differ by their seed alone: the members of an ensemble, which averages their probabilities.

Member n, from 1, is the training that `train.seed` + n - 1 gives by itself.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from torch import Tensor

from lesionseg.common.files import write_csv, write_json
from lesionseg.train.progress import Row


def seeds(seed: int, members: int) -> range:
    return range(seed, seed + members)


def together(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The weights of the network `networks.build` makes of so many members; of one, its own."""
    if len(states) == 1:
        return dict(states[0])
    return {f"members.{index}.{name}": tensor for index, state in enumerate(states) for name, tensor in state.items()}


def mean_history(histories: Sequence[Sequence[Row]]) -> list[Row]:
    """A row an epoch: the mean over the members that reached it. Of one member, its history."""
    if len(histories) == 1:
        return list(histories[0])
    longest = max(histories, key=len)
    reached = [[history[index] for history in histories if index < len(history)] for index in range(len(longest))]
    return [
        {"epoch": rows[0]["epoch"]} | {name: fmean(row[name] for row in rows) for name in rows[0] if name != "epoch"}
        for rows in reached
    ]


class History:
    """The history on the disk, rewritten after every epoch: `dvc plots show` and `dvc exp show` follow it as it grows.

    `path` gets a row an epoch, of several members the mean of those trained so far; `last` the metrics of the
    last epoch that people compare; `each`, where there are several, the rows of every member.
    """

    LAST = ("epoch", "train_loss", "val_loss", "val_dice")

    def __init__(self, path: Path, last: Path, each: Path):
        self._path, self._last, self._each = path, last, each
        self._members: dict[int, list[Row]] = {}

    def add(self, member: int, row: Row) -> None:
        """Take in an epoch of a member; a resumed run adds those before it again, from the first on."""
        self._members.setdefault(member, []).append(row)
        rows = mean_history(list(self._members.values()))
        write_csv(self._path, list(rows[0]), rows)
        write_json(self._last, {name: rows[-1][name] for name in self.LAST})
        if len(self._members) > 1:
            each = [{"member": member} | row for member, history in self._members.items() for row in history]
            write_csv(self._each, list(each[0]), each)
