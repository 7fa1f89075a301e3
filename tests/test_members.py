"""The scores of an ensemble's members beside the ensemble's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lesionseg import networks
from lesionseg.evaluate.evaluation import Case
from lesionseg.evaluate.members import compare_members
from lesionseg.formats.processed import Processed
from lesionseg.inference.prediction import predict
from tiny_data import settle
from tiny_training import arrays


def test_each_member_has_the_scores_it_has_alone_and_the_ensemble_those_of_the_mean():
    torch.manual_seed(3)
    ensemble = networks.build_network("unet", 2, members=2)
    images, masks = arrays(6)
    for member in ensemble.members:
        settle(member, torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    ensemble.eval()
    splits = ["val", "val", "val", "test", "test", "test"]
    cases = [
        Case(id=f"T_{row}", split=split, row=row, mask=Path(), group=f"T_{row}") for row, split in enumerate(splits)
    ]
    thresholds = {"val": 0.195, "test": 0.199}  # untrained networks begin near the share of lesion
    plain = [np.stack([one.plain for one in predict(each, images, range(6))]) for each in (ensemble, *ensemble.members)]
    data = Processed([], images, masks)
    compared = compare_members(ensemble, plain[0], data, cases, thresholds, torch.device("cpu"))
    assert list(compared) == ["val", "test"]
    assert list(compared["test"]) == ["ensemble", "member 1", "member 2"]
    for maps, name in zip(plain, compared["val"], strict=True):
        for split, rows in (("val", slice(0, 3)), ("test", slice(3, 6))):
            lesion = maps[rows] / 255 >= thresholds[split]
            both, either = (lesion & masks[rows]).sum((1, 2)), lesion.sum((1, 2)) + masks[rows].sum((1, 2))
            assert compared[split][name]["dice_mean"] == pytest.approx(np.mean(2 * both / either))
            assert compared[split][name]["dice_pooled"] == pytest.approx(2 * both.sum() / either.sum())
    assert 0 < compared["test"]["member 1"]["dice_pooled"] != compared["test"]["member 2"]["dice_pooled"] > 0
