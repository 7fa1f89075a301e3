"""An ensemble compared with its members: how much of a score depends on the seed."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from lesionseg.evaluate.evaluation import Case
from lesionseg.formats.processed import Processed
from lesionseg.inference.prediction import predict
from lesionseg.inference.settings import level
from lesionseg.networks.ensemble import Ensemble
from lesionseg.scoring import scores
from lesionseg.scoring.counts import Counts, count

Scores = dict[str, float]


def compare_members(
    ensemble: Ensemble,
    plain: np.ndarray,
    data: Processed,
    cases: Sequence[Case],
    thresholds: Mapping[str, float],
    device: torch.device,
) -> dict[str, dict[str, Scores]]:
    """Scores by split, then by `ensemble`, `member 1`, …: at the network's size and the split's threshold, without
    post-processing.

    `plain` are the ensemble's 8-bit probabilities (M, H, W) of the cases.
    """
    rows = [case.row for case in cases]
    found = {"ensemble": _scores(plain, data, cases, thresholds)}
    for number, member in enumerate(ensemble.members, start=1):
        maps = (prediction.plain for prediction in predict(member, data.images, rows, device))
        found[f"member {number}"] = _scores(maps, data, cases, thresholds)
    return {split: {name: by_split[split] for name, by_split in found.items()} for split in found["ensemble"]}


def _scores(
    maps: Iterable[np.ndarray], data: Processed, cases: Sequence[Case], thresholds: Mapping[str, float]
) -> dict[str, Scores]:
    """The scores of one network by split."""
    counted: dict[str, list[Counts[int]]] = {}
    for probabilities, case in zip(maps, cases, strict=True):
        predicted = probabilities >= level(thresholds[case.split])
        counted.setdefault(case.split, []).append(count(predicted, data.masks[case.row]))
    counts = {split: Counts.of(np.array(rows)) for split, rows in counted.items()}
    return {
        split: {
            "dice_mean": float(scores.dice(each).mean()),
            "iou_mean": float(scores.iou(each).mean()),
            "dice_pooled": float(scores.dice(each.pooled())),
            "iou_pooled": float(scores.iou(each.pooled())),
        }
        for split, each in counts.items()
    }
