"""Several training runs that differ only in their seed: the members of an ensemble, whose probabilities are averaged.

Member n, from 1, is the network that `train.seed` + n - 1 gives by itself.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from torch import Tensor

from lesionseg.common.files import write_csv, write_json
from lesionseg.train.progress import Row


def seeds(seed: int, members: int) -> range:
    return range(seed, seed + members)


def ensemble_state(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The `state_dict` of the Ensemble of these members; of a single one, its own."""
    if len(states) == 1:
        return dict(states[0])
    return {f"members.{index}.{name}": tensor for index, state in enumerate(states) for name, tensor in state.items()}


def mean_history(histories: Sequence[Sequence[Row]]) -> list[Row]:
    """One row per epoch: the mean over the members that reached it; for one member, its history."""
    if len(histories) == 1:
        return list(histories[0])
    longest = max(histories, key=len)
    reached = [[history[index] for history in histories if index < len(history)] for index in range(len(longest))]
    return [
        {"epoch": rows[0]["epoch"]} | {name: fmean(row[name] for row in rows) for name in rows[0] if name != "epoch"}
        for rows in reached
    ]


class History:
    """The history files, rewritten after every epoch: `dvc plots show` and `dvc exp show` follow a run.

    `path` gets a row an epoch, with several members their mean so far; `last` the main metrics of the last epoch;
    `each` every member's rows, if there are several.
    """

    LAST = ("epoch", "train_loss", "val_loss", "val_dice")

    def __init__(self, path: Path, last: Path, each: Path):
        self._path, self._last, self._each = path, last, each
        self._members: dict[int, list[Row]] = {}

    def add(self, member: int, row: Row) -> None:
        """Add an epoch of a member; a resumed run adds the earlier ones again, from the first on."""
        self._members.setdefault(member, []).append(row)
        rows = mean_history(list(self._members.values()))
        write_csv(self._path, list(rows[0]), rows)
        write_json(self._last, {name: rows[-1][name] for name in self.LAST})
        if len(self._members) > 1:
            each = [{"member": member} | row for member, history in self._members.items() for row in history]
            write_csv(self._each, list(each[0]), each)
