"""Several trainings that differ by their seed alone: the members of an ensemble, which averages their probabilities.

Member n, from 1, is the training that `train.seed` + n - 1 gives by itself.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from torch import Tensor

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
